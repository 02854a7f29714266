// A relying party with openid-client: registration, sign-in, what it reads, renewal, sign-out.
import * as client from "openid-client";
import { registered, run, visit } from "./conversation.mjs";

run(async (asked) => {
  const method = { none: client.None, client_secret_basic: client.ClientSecretBasic, client_secret_post: client.ClientSecretPost };
  const authentication = method[asked.metadata.token_endpoint_auth_method];
  const setup = { execute: [client.allowInsecureRequests, client.enableNonRepudiationChecks] };
  const first = await client.dynamicClientRegistration(new URL(asked.issuer), asked.metadata, undefined, setup);
  const known = first.clientMetadata();
  registered(known);
  // Once more from what was registered, as after a restart, with the method of authentication that was registered.
  const config = await client.discovery(new URL(asked.issuer), known.client_id, known, authentication(known.client_secret), setup);
  const options = asked.bound ? { DPoP: client.getDPoPHandle(config, await client.randomDPoPKeyPair("ES256")) } : {};

  const verifier = client.randomPKCECodeVerifier();
  const checks = { pkceCodeVerifier: verifier, expectedNonce: client.randomNonce(), expectedState: client.randomState() };
  const parameters = {
    ...asked.parameters,
    redirect_uri: asked.metadata.redirect_uris[0],
    scope: asked.metadata.scope,
    nonce: checks.expectedNonce,
    state: checks.expectedState,
    code_challenge: await client.calculatePKCECodeChallenge(verifier),
    code_challenge_method: "S256",
  };
  const address = asked.pushed
    ? await client.buildAuthorizationUrlWithPAR(config, parameters, options)
    : client.buildAuthorizationUrl(config, parameters);
  const answer = await visit(address);
  const tokens = await client.authorizationCodeGrant(
    config, asked.parameters.response_mode === "form_post" ? answer : new URL(answer.url),
    { ...checks, idTokenExpected: true, maxAge: 300, ...asked.checks }, undefined, options,
  );
  const claims = tokens.claims();
  const read = async (token) =>
    (await client.fetchProtectedResource(config, token, new URL(asked.read), "GET", undefined, undefined, options)).json();

  const userinfo = await client.fetchUserInfo(config, tokens.access_token, claims.sub, options);
  const before = await read(tokens.access_token);
  const renewed = await client.refreshTokenGrant(config, tokens.refresh_token, undefined, options);
  const after = await read(renewed.access_token);

  const state = client.randomState();
  const left = await visit(client.buildEndSessionUrl(config, {
    post_logout_redirect_uri: asked.metadata.post_logout_redirect_uris[0], id_token_hint: renewed.id_token, state,
  }));
  await client.tokenRevocation(config, renewed.refresh_token);
  const ended = await client.refreshTokenGrant(config, renewed.refresh_token, undefined, options).catch((error) => error.error);
  return {
    asked: String(address), type: tokens.token_type, claims, userinfo, renewed: renewed.claims(),
    tokens: [tokens.access_token, renewed.access_token],
    read: [before, after].map((resource) => `${resource.resourceType}/${resource.id}`),
    left: new URL(left.url).searchParams.get("state") === state, ended,
  };
});
