#!/bin/sh
# Puts the packages of HAPI FHIR's Java client into .cache/hapi, in the versions of its pom.xml. Needs the Debian packages of the group java.
set -eu
folder=.cache/hapi
rm -rf "$folder" # an earlier version of a package would be used beside the new one
mvn -q -B -f tests/clients/hapi/pom.xml dependency:copy-dependencies "-DoutputDirectory=$PWD/$folder"
