//! The machine-readable form of the API.

use serde::Serialize;
use utoipa::openapi::path::{Operation, PathItem};
use utoipa::openapi::security::{Http, HttpAuthScheme, SecurityRequirement, SecurityScheme};
use utoipa::openapi::{self, ContentBuilder, HeaderBuilder, Ref, RefOr, ResponseBuilder};
use utoipa::{OpenApi, ToSchema};

/// What every answer of 400 or more has for a body.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct ErrorBody {
    error: ErrorDetail,
}

/// What failed, and what to do.
#[derive(Debug, Serialize, ToSchema)]
struct ErrorDetail {
    /// Stable, for programs.
    code: String,
    /// What failed, and which one.
    message: String,
    /// What to do.
    hint: String,
    /// Nodes of a workflow that cannot run.
    #[serde(skip_serializing_if = "Option::is_none")]
    nodes: Option<Vec<NodeDetail>>,
}

/// A node of a workflow.
#[derive(Debug, Serialize, ToSchema)]
struct NodeDetail {
    id: String,
    class_type: String,
    /// `native` or `missing`.
    status: String,
    /// Why it cannot run.
    #[serde(skip_serializing_if = "Option::is_none")]
    why: Option<String>,
}

#[derive(OpenApi)]
#[openapi(
    info(title = "comfystream", description = "Runs a model on live video.", license(name = "MPL-2.0", identifier = "MPL-2.0")),
    servers((url = "/"), (url = "/live", description = "Where clients of ComfyStream's server look.")),
    components(schemas(ErrorBody, super::wish::Change, super::wish::Wish, super::offer::OfferBody)),
    tags(
        (name = "sessions", description = "ComfyStream's way: an offer by JSON."),
        (name = "whip", description = "Publishing, RFC 9725."),
        (name = "whep", description = "Watching, draft-ietf-wish-whep."),
        (name = "service", description = "What there is."),
    ),
)]
pub(crate) struct Document;

const SCHEME: &str = "token";

/// Adds what all operations have in common.
pub(crate) fn complete(document: &mut openapi::OpenApi) {
    let scheme = SecurityScheme::Http(Http::new(HttpAuthScheme::Bearer));
    document
        .components
        .get_or_insert_default()
        .add_security_scheme(SCHEME, scheme);
    for item in document.paths.paths.values_mut() {
        for (operation, has_body) in operations(item) {
            let open = operation.security.is_some();
            let mut add = |status: &str, description: &str, header: Option<&str>| {
                let responses = &mut operation.responses.responses;
                responses
                    .entry(status.into())
                    .or_insert_with(|| RefOr::T(refusal(description, header)));
            };
            add("500", "The service is at fault.", None);
            if !open {
                add("401", "A token is asked for.", Some("WWW-Authenticate"));
            }
            if has_body {
                add("408", "The body came too slowly.", None);
                add("413", "The body is too long.", None);
                add("503", "There is no place left.", Some("Retry-After"));
            }
            if !open {
                operation.security = Some(vec![
                    SecurityRequirement::new(SCHEME, Vec::<String>::new()),
                    SecurityRequirement::default(),
                ]);
            }
        }
    }
}

fn refusal(description: &str, header: Option<&str>) -> openapi::Response {
    let schema = Ref::from_schema_name("ErrorBody");
    let content = ContentBuilder::new().schema(Some(schema)).build();
    let response = ResponseBuilder::new()
        .description(description)
        .content("application/json", content);
    match header {
        Some(name) => response.header(name, HeaderBuilder::new().build()).build(),
        None => response.build(),
    }
}

/// All operations of an address, and whether they take a body.
fn operations(item: &mut PathItem) -> impl Iterator<Item = (&mut Operation, bool)> {
    let PathItem {
        get,
        post,
        patch,
        delete,
        options,
        ..
    } = item;
    let with = [
        (post, true),
        (patch, true),
        (get, false),
        (delete, false),
        (options, false),
    ];
    with.into_iter()
        .filter_map(|(operation, has_body)| operation.as_mut().map(|operation| (operation, has_body)))
}
