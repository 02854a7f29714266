// A desktop app with AppAuth-JS for Node.js, which opens the person's browser (xdg-open) and listens for the answer itself.
import http from "node:http";
import "./bundler_resolution.mjs";
import { run, tell } from "./conversation.mjs";

const root = "../node_modules/@openid/appauth/built/src";
const auth = await import(`${root}/index.js`);
const node = await import(`${root}/node_support/node_request_handler.js`);
const { NodeCrypto } = await import(`${root}/node_support/crypto_utils.js`);
const { NodeRequestor } = await import(`${root}/node_support/node_requestor.js`);
auth.Flags.IS_LOG = false; // it would write between our lines

// While the person signs in, a connection is idle for so long that the server may end it in the moment in which it is used again.
http.globalAgent.keepAlive = false;

run(async (asked) => {
  const requestor = new NodeRequestor();
  const server = await auth.AuthorizationServiceConfiguration.fetchFromIssuer(asked.issuer, requestor);
  const notifier = new auth.AuthorizationNotifier();
  const browser = new node.NodeBasedHandler(asked.port);
  browser.setAuthorizationNotifier(notifier);

  const client = { client_id: asked.client_id, redirect_uri: asked.redirect_uri };
  const answered = new Promise((resolve, reject) => {
    notifier.setAuthorizationListener((request, response, error) => (error ? reject(error) : resolve({ request, response })));
  });
  browser.performAuthorizationRequest(server, new auth.AuthorizationRequest(
    { ...client, scope: asked.scope, response_type: auth.AuthorizationRequest.RESPONSE_TYPE_CODE, extras: { aud: asked.audience } },
    new NodeCrypto(),
  ));
  tell({ open: "" }); // what to open, xdg-open was told
  const { request, response } = await answered;

  const handler = new auth.BaseTokenRequestHandler(requestor);
  const granted = await handler.performTokenRequest(server, new auth.TokenRequest({
    ...client, grant_type: auth.GRANT_TYPE_AUTHORIZATION_CODE, code: response.code,
    extras: { code_verifier: request.internal.code_verifier },
  }));
  const renewed = await handler.performTokenRequest(server, new auth.TokenRequest({
    ...client, grant_type: auth.GRANT_TYPE_REFRESH_TOKEN, refresh_token: granted.refreshToken,
  }));
  const headers = { Authorization: `Bearer ${renewed.accessToken}` };
  const userinfo = await requestor.xhr({ url: server.userInfoEndpoint, method: "GET", dataType: "json", headers });
  const read = await requestor.xhr({ url: asked.read, method: "GET", dataType: "json", headers });
  const revocation = new auth.RevokeTokenRequest({ token: renewed.refreshToken, client_id: asked.client_id });
  await handler.performRevokeTokenRequest(server, revocation);
  const after = await requestor.xhr({ url: asked.read, method: "GET", dataType: "json", headers }).then(() => "read", () => "refused");
  return { sent: request.state, returned: response.state, idToken: granted.idToken, userinfo, read: read.id, after };
});
