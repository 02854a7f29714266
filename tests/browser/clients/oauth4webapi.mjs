// A relying party with oauth4webapi, which authenticates with a key of its own (private_key_jwt).
import * as oauth from "oauth4webapi";
import { registered, run, visit } from "./conversation.mjs";

run(async (asked) => {
  const http = { [oauth.allowInsecureRequests]: true };
  const issuer = new URL(asked.issuer);
  const server = await oauth.processDiscoveryResponse(issuer, await oauth.discoveryRequest(issuer, { ...http, algorithm: asked.discovery }));

  const { publicKey, privateKey } = await oauth.generateKeyPair("ES384", { extractable: false });
  const key = { ...(await crypto.subtle.exportKey("jwk", publicKey)), kid: "own", alg: "ES384", use: "sig" };
  delete key.ext, delete key.key_ops;
  const metadata = { ...asked.metadata, token_endpoint_auth_method: "private_key_jwt", jwks: { keys: [key] } };
  const client = await oauth.processDynamicClientRegistrationResponse(await oauth.dynamicClientRegistrationRequest(server, metadata, http));
  registered(client);
  const authentication = oauth.PrivateKeyJwt({ key: privateKey, kid: "own" });

  const [verifier, state, nonce] = [oauth.generateRandomCodeVerifier(), oauth.generateRandomState(), oauth.generateRandomNonce()];
  const address = new URL(server.authorization_endpoint);
  address.search = new URLSearchParams({
    client_id: client.client_id, response_type: "code", redirect_uri: asked.metadata.redirect_uris[0], scope: asked.metadata.scope,
    aud: asked.audience, state, nonce, code_challenge: await oauth.calculatePKCECodeChallenge(verifier), code_challenge_method: "S256",
  });
  const callback = oauth.validateAuthResponse(server, client, new URL((await visit(address)).url), asked.checks?.state ?? state);
  const granted = await oauth.authorizationCodeGrantRequest(
    server, client, authentication, callback, asked.metadata.redirect_uris[0], verifier, http,
  );
  const tokens = await oauth.processAuthorizationCodeResponse(
    server, client, granted, { expectedNonce: asked.checks?.nonce ?? nonce, maxAge: 300, requireIdToken: true },
  );
  await oauth.validateApplicationLevelSignature(server, granted, http);
  const { sub } = oauth.getValidatedIdTokenClaims(tokens);

  // The document of RFC 8414 names what OAuth clients use, and no userinfo endpoint.
  const userinfo = server.userinfo_endpoint
    ? await oauth.processUserInfoResponse(server, client, sub, await oauth.userInfoRequest(server, client, tokens.access_token, http))
    : null;
  const renewal = await oauth.refreshTokenGrantRequest(server, client, authentication, tokens.refresh_token, http);
  const renewed = await oauth.processRefreshTokenResponse(server, client, renewal);
  const known = await oauth.processIntrospectionResponse(
    server, client, await oauth.introspectionRequest(server, client, authentication, renewed.access_token, http),
  );
  const read = await oauth.protectedResourceRequest(renewed.access_token, "GET", new URL(asked.read), undefined, undefined, http);
  await oauth.processRevocationResponse(await oauth.revocationRequest(server, client, authentication, renewed.refresh_token, http));
  const after = await oauth.protectedResourceRequest(renewed.access_token, "GET", new URL(asked.read), undefined, undefined, http)
    .then((answer) => answer.status, (error) => error.status);
  return { claims: oauth.getValidatedIdTokenClaims(tokens), userinfo, known, read: (await read.json()).id, after };
});
