//! The description of the API, made from the handlers. Checked in as `openapi/v1.json`;
//! `cnm_http openapi > openapi/v1.json` makes it anew.

use crate::routes;
use model::ApiError;
use utoipa::openapi::OpenApi;
use utoipa::openapi::security::{HttpAuthScheme, HttpBuilder, SecurityScheme};
use utoipa::{Modify, OpenApi as _};

#[derive(utoipa::OpenApi)]
#[openapi(
    info(
        title = "Mainstay REST API",
        version = "v1",
        description = "Served by every node at https://<node>:9443, and without a password over \
            the unix socket run/cnm_http.sock for members of the node's group. Errors have the \
            body {\"error_code\", \"description\"}.",
        license(name = "Apache-2.0", identifier = "Apache-2.0"),
    ),
    components(schemas(ApiError)),
    security(("basic" = [])),
    modifiers(&Basic),
)]
struct Description;

struct Basic;

impl Modify for Basic {
    fn modify(&self, openapi: &mut OpenApi) {
        let scheme = HttpBuilder::new()
            .scheme(HttpAuthScheme::Basic)
            .description(Some("E-mail and password of a user of the cluster."))
            .build();
        let components = openapi.components.get_or_insert_default();
        components.add_security_scheme("basic", SecurityScheme::Http(scheme));
    }
}

/// What the routes are added to.
pub(crate) fn base() -> OpenApi {
    Description::openapi()
}

/// The document as it is checked in, with a line's end.
///
/// # Panics
/// Never: the document holds nothing that JSON cannot say.
#[must_use]
#[expect(
    clippy::expect_used,
    reason = "the document is made of strings, numbers and lists"
)]
pub fn document() -> String {
    let (_, mut openapi) = routes::described().split_for_parts();
    name_operations(&mut openapi);
    openapi
        .to_pretty_json()
        .expect("an OpenAPI document is JSON")
        + "\n"
}

/// Ids of operations are handlers' names, unique within an area: the area makes them unique.
fn name_operations(openapi: &mut OpenApi) {
    let items = openapi.paths.paths.values_mut();
    let operations = items.flat_map(|item| {
        [
            &mut item.get,
            &mut item.put,
            &mut item.post,
            &mut item.delete,
        ]
    });
    for operation in operations.flatten() {
        let area = operation.tags.as_ref().and_then(|tags| tags.first());
        if let (Some(area), Some(name)) = (area, &operation.operation_id) {
            operation.operation_id = Some(format!("{area}_{name}"));
        }
    }
}
