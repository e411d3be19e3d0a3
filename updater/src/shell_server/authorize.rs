//! Whether a request may have a shell.

use std::io;

use hyper::header::{AUTHORIZATION, UPGRADE};
use hyper::{Method, Request, StatusCode};
use protocol::KeyRing;
use protocol::claims::TimeError;
use protocol::shell::{self, Binding, FRESH_SECONDS, ShellClaim};
use protocol::token::{self, TokenError};

use crate::audience::includes_this_host;

/// A request for a shell that was refused.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ShellError {
    /// The source may have no shell.
    #[error(
        "the source {0:?} may have no shell: set \"shell\" to true in its entry of \"listen.sources\""
    )]
    Off(String),
    /// The connection does not use TLS 1.3.
    #[error("a shell needs TLS 1.3, whose keys its token is bound to")]
    NoTls,
    /// The request is not one for this protocol.
    #[error(
        "expected GET with \"Upgrade: {}\" and \"Authorization: Bearer\" with a token",
        shell::UPGRADE
    )]
    Request,
    /// The token is malformed or not signed by this source.
    #[error(transparent)]
    Token(#[from] TokenError),
    /// The token is not valid at this time.
    #[error("the token is not valid: {0}")]
    Time(#[from] TimeError),
    /// The token is valid, but not for this.
    #[error("the token is not acceptable: {0}")]
    Claims(&'static str),
    /// [`super::SHELLS_MAX`] shells are open.
    #[error("too many shells are open: end one of them")]
    TooMany,
    /// The shell cannot be recorded as open.
    #[error("the shell cannot be recorded as open: {0}")]
    Record(io::Error),
}

impl ShellError {
    /// Returns the status of the response.
    pub(crate) fn status(&self) -> StatusCode {
        match self {
            Self::Off(_) => StatusCode::FORBIDDEN,
            Self::NoTls | Self::Request => StatusCode::UPGRADE_REQUIRED,
            Self::Token(_) | Self::Time(_) | Self::Claims(_) => StatusCode::UNAUTHORIZED,
            Self::TooMany => StatusCode::SERVICE_UNAVAILABLE,
            Self::Record(_) => StatusCode::INTERNAL_SERVER_ERROR,
        }
    }
}

/// Returns the token of a request for this protocol.
pub(super) fn token<B>(request: &Request<B>, has_binding: bool) -> Result<&str, ShellError> {
    if !has_binding {
        return Err(ShellError::NoTls);
    }
    let header = |name| request.headers().get(name).and_then(|value| value.to_str().ok());
    let is_ours = request.method() == Method::GET && header(UPGRADE) == Some(shell::UPGRADE);
    let token = header(AUTHORIZATION).and_then(|value| value.strip_prefix("Bearer "));
    token.filter(|_| is_ours).ok_or(ShellError::Request)
}

/// Verifies a token and returns the id of its key.
pub(super) fn verify(
    token: &str,
    keys: &KeyRing,
    binding: Binding,
    now: u64,
) -> Result<String, ShellError> {
    let claims = token::verify(token, keys)?;
    let found = claims.etchaos_shell.as_ref();
    let found = found.ok_or(ShellError::Claims("it has no claim etchaosShell"))?;
    // Both are bound to keys that only the two sides know, so the time of the comparison reveals nothing.
    if *found != ShellClaim::from(binding) {
        return Err(ShellError::Claims("it is bound to another connection"));
    }
    claims.check_time(now)?;
    let iat = claims.iat.ok_or(ShellError::Claims("it has no iat"))?;
    if now > iat.saturating_add(FRESH_SECONDS) {
        return Err(ShellError::Claims("it is older than a minute: check both clocks"));
    }
    if claims.etcha_pattern.is_some() || claims.etchaos_release.is_some() {
        return Err(ShellError::Claims("it is a push or a manifest"));
    }
    if !includes_this_host(&claims.aud) {
        return Err(ShellError::Claims(
            "its audience (aud) is neither \"etchaos\" nor the name of this host",
        ));
    }
    Ok(claims.key_id().to_owned())
}

#[cfg(test)]
mod tests {
    use protocol::pattern::{Pattern, PatternFiles};
    use protocol::{Claims, PrivateKey};

    use super::*;

    const NOW: u64 = 1_790_000_000;

    #[test]
    fn accepts_only_fresh_tokens_for_this_connection() {
        let (key, other) = (PrivateKey::generate(), PrivateKey::generate());
        let (binding, another) = (Binding([7; 32]), Binding([8; 32]));
        let valid =
            Claims { iat: Some(NOW), etchaos_shell: Some(binding.into()), ..Claims::default() };
        let ring: KeyRing = key.public().clone().into();
        let of = |claims: &Claims, key: &PrivateKey| {
            verify(&token::sign(key, claims).unwrap(), &ring, binding, NOW)
        };
        assert_eq!(of(&valid, &key).unwrap(), key.id());
        assert!(matches!(of(&valid, &other), Err(ShellError::Token(_))));
        let with = |change: fn(&mut Claims)| {
            let mut claims = valid.clone();
            change(&mut claims);
            claims
        };
        assert!(of(&with(|c| c.aud = vec!["etchaos".into()]), &key).is_ok());
        assert!(of(&with(|c| c.iat = Some(NOW - FRESH_SECONDS)), &key).is_ok());
        let elsewhere = Claims { etchaos_shell: Some(another.into()), ..valid.clone() };
        for refused in [
            elsewhere,
            with(|c| c.etchaos_shell = None),
            with(|c| c.iat = None),
            with(|c| c.iat = Some(NOW - FRESH_SECONDS - 1)),
            with(|c| c.iat = Some(NOW + 3600)),
            with(|c| c.exp = Some(NOW - 3600)),
            with(|c| c.aud = vec!["another-host".into()]),
            with(|c| c.etcha_pattern = Some(PatternFiles::from(&Pattern::default()))),
        ] {
            let error = of(&refused, &key).unwrap_err();
            assert_eq!(error.status(), 401, "{refused:?}: {error}");
        }
    }
}
