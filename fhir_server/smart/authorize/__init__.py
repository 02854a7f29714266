"""The pages of the authorization endpoint: sign-in, record and visit pickers, consent."""
