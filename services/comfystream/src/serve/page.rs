//! The page, out of the program itself.

use axum::extract::Request;
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header};
use axum::response::{IntoResponse, Response};
use rust_embed::{EmbeddedFile, RustEmbed};

use super::error::Failure;

#[derive(RustEmbed)]
#[folder = "page/dist"]
struct Files;

/// Scripts, styles and connections of the page's own origin only.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data: blob:; \
                      media-src 'self' blob: mediastream:; font-src 'self'; connect-src 'self'; worker-src 'self' blob:; \
                      manifest-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'self'";
const HEADERS: [(HeaderName, &str); 4] = [
    (header::CONTENT_SECURITY_POLICY, POLICY),
    (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    (header::REFERRER_POLICY, "no-referrer"),
    (HeaderName::from_static("cross-origin-opener-policy"), "same-origin"),
];

/// The file that an address stands for.
fn file(path: &str) -> Option<&str> {
    Some(match path {
        "/" | "/index.html" => "index.html",
        "/whep-player" => "player.html",
        "/stats" => "stats.html",
        other => other.strip_prefix('/')?,
    })
}

/// A file of the page.
pub(crate) async fn serve(request: Request) -> Response {
    let path = request.uri().path();
    let found = file(path).and_then(|name| Some((name, Files::get(name)?)));
    match found {
        Some((name, file)) if matches!(*request.method(), Method::GET | Method::HEAD) => {
            respond(name, &file, request.headers())
        }
        Some(_) => {
            let mut response = super::router::method_not_allowed().into_response();
            response
                .headers_mut()
                .insert(header::ALLOW, HeaderValue::from_static("GET,HEAD"));
            response
        }
        None => Failure::new(
            StatusCode::NOT_FOUND,
            "not_found",
            format!("there is nothing at {path:.128}"),
            "GET /openapi.json lists what there is",
        )
        .into_response(),
    }
}

fn respond(name: &str, file: &EmbeddedFile, asked: &HeaderMap) -> Response {
    let tag = tag(file);
    let mut response = if matches(asked, &tag) {
        StatusCode::NOT_MODIFIED.into_response()
    } else {
        file.data.to_vec().into_response()
    };
    let headers = response.headers_mut();
    for (name, value) in HEADERS {
        headers.insert(name, HeaderValue::from_static(value));
    }
    // Vite names assets by what is in them.
    let cache = match name.starts_with("assets/") {
        true => "public, max-age=31536000, immutable",
        false => "no-cache",
    };
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static(cache));
    let mime = match file.metadata.mimetype() {
        text if text.starts_with("text/") => format!("{text}; charset=utf-8"),
        other => other.to_owned(),
    };
    for (name, value) in [(header::ETAG, tag), (header::CONTENT_TYPE, mime)] {
        if let Ok(value) = HeaderValue::try_from(value) {
            headers.insert(name, value);
        }
    }
    response
}

fn tag(file: &EmbeddedFile) -> String {
    let hash = file.metadata.sha256_hash();
    let hex: String = hash.iter().take(12).map(|byte| format!("{byte:02x}")).collect();
    format!("\"{hex}\"")
}

/// Whether who asks has it already.
fn matches(headers: &HeaderMap, tag: &str) -> bool {
    let mut given = headers.get_all(header::IF_NONE_MATCH).iter();
    given.any(|value| {
        value.to_str().is_ok_and(|text| {
            text.split(',')
                .map(|each| each.trim().trim_start_matches("W/"))
                .any(|each| each == tag || each == "*")
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_stand_for_files() {
        for (path, name) in [
            ("/", Some("index.html")),
            ("/stats", Some("stats.html")),
            ("/assets/a.js", Some("assets/a.js")),
            ("", None),
        ] {
            assert_eq!(file(path), name, "{path}");
        }
        for path in ["../Cargo.toml", "assets/../../Cargo.toml", "/etc/passwd", ""] {
            assert!(Files::get(path).is_none(), "{path}");
        }
    }

    #[test]
    fn a_page_that_is_known_is_not_sent_again() {
        let file = Files::get("index.html").unwrap();
        let first = respond("index.html", &file, &HeaderMap::new());
        assert_eq!(first.status(), StatusCode::OK);
        assert_eq!(first.headers()[header::CONTENT_TYPE], "text/html; charset=utf-8");
        assert_eq!(first.headers()[header::CACHE_CONTROL], "no-cache");
        let tag = first.headers()[header::ETAG].clone();
        let again = respond(
            "index.html",
            &file,
            &HeaderMap::from_iter([(header::IF_NONE_MATCH, tag)]),
        );
        assert_eq!(again.status(), StatusCode::NOT_MODIFIED);
    }
}
