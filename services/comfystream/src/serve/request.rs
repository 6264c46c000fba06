//! What handlers take out of a request's address.

use axum::extract::{FromRequestParts, Path};
use axum::http::StatusCode;
use axum::http::request::Parts;
use serde::Deserialize;
use utoipa::IntoParams;

use super::error::Failure;

/// The last part of the address.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Path)]
pub(crate) struct Named {
    /// 1 to 64 letters, digits, dots, dashes and underscores.
    #[param(pattern = "^[A-Za-z0-9._-]{1,64}$", min_length = 1, max_length = 64)]
    pub(crate) name: String,
}

impl<S: Send + Sync> FromRequestParts<S> for Named {
    type Rejection = Failure;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Failure> {
        match Path::<Named>::from_request_parts(parts, state).await {
            Ok(Path(named)) => Ok(named),
            Err(rejection) => Err(Failure::new(
                StatusCode::BAD_REQUEST,
                "path_malformed",
                format!("the address is not understood: {}", rejection.body_text()),
                "encode it as UTF-8, then by percents",
            )),
        }
    }
}

/// Whether the request came below `/live`, where clients of ComfyStream look.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Live(pub(crate) bool);

impl Live {
    /// What stands before paths in answers.
    pub(crate) fn prefix(self) -> &'static str {
        if self.0 { "/live" } else { "" }
    }
}

impl<S: Send + Sync> FromRequestParts<S> for Live {
    type Rejection = std::convert::Infallible;

    async fn from_request_parts(parts: &mut Parts, _state: &S) -> Result<Self, Self::Rejection> {
        Ok(parts.extensions.get().copied().unwrap_or_default())
    }
}
