#!/bin/sh
# Makes the files of ./secrets for compose.yaml.  Files that exist stay as they are.
# The folder is open to its owner only.  Its files can be read by all, because containers read them as users of their own.
set -eu
umask 077
cd "$(dirname "$0")"
mkdir -p secrets
chmod 700 secrets

make() {
    [ -s "secrets/$1" ] || cat >"secrets/$1"
    chmod 444 "secrets/$1"
}

openssl rand -base64 48 | tr -d '\n' | make secret-key
openssl rand -hex 24 | tr -d '\n' | make metrics-token
openssl rand -base64 756 | make mongodb-keyfile
openssl rand -hex 24 | tr -d '\n' | make mongodb-root-password
# The server's account in MongoDB, which init_replica_set.py makes, is in this URL.
printf 'mongodb://fhir:%s@mongodb1,mongodb2,mongodb3/fhir?replicaSet=rs0&authSource=fhir' "$(openssl rand -hex 24)" | make store
