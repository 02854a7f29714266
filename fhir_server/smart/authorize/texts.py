"""What the pages of the authorization endpoint say about problems, and the links that they offer."""

from __future__ import annotations

EXPIRED = "This request has expired or was already answered. Go back to the app and start again."
ANSWERED = (
    "You have already answered this request, or it has expired. Go back to the app. If it does not continue, start again there. "
    "The page Connected apps lists the access you have allowed. You can end it there."
)
REFUSED = "The user name or password is wrong. Check both, and try again."
WAIT = (
    "Wrong passwords have been tried too often for this user name or from your network, so this attempt was not checked. Your turn "
    "comes in {wait}: sign in again then, in this browser and within ten minutes. In a browser in which you have signed in before "
    "you need not wait."
)
NOT_FOR_STAFF = (
    "{client} is not approved for staff of {organization}, so it gets no access with your account. "
    "If you need it for your work, ask those who look after this system to approve it."
)
INVALID_REQUEST = "The app sent an invalid request. Go back to the app and try again."
CHOOSE = "Select one of the records in the list."
CHOOSE_VISIT = "Select one of the visits, or no particular visit."
TOO_MANY = "Too many requests from your network. Wait some minutes, then go back to the app and start again."
TOO_MANY_SIGN_INS = "Too many sign-ins from your network. Wait a minute, then try again."
OLD_SIGN_IN = "The sign-in page was too old. Sign in again. If this message comes back, allow cookies for this site."
SIGNED_IN = "You are signed in. The form was sent twice; the second time had no effect."
HOME = ("Go to the start page", "/")
CONNECTED_APPS = ("Connected apps", "/apps")
STALE_LIST = "This list has changed since. Go back and search again."
