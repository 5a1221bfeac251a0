//! The files that pages load.

use axum::extract::{Path, Query};
use axum::http::{Uri, header};
use axum::response::{IntoResponse, Response};
use serde::Deserialize;

use crate::http::responses::not_found;
use crate::layout::assets::ASSETS;

#[derive(Deserialize)]
pub(crate) struct Wanted {
    #[serde(default)]
    v: String,
}

/// GET `/static/{name}`.
pub(crate) async fn asset(
    uri: Uri,
    Path(name): Path<String>,
    Query(wanted): Query<Wanted>,
) -> Response {
    let Some(asset) = ASSETS.into_iter().find(|asset| asset.name == name) else {
        return not_found(uri).await;
    };
    // while versions of the server are exchanged, one may be asked for the other's content
    let kept = if wanted.v == asset.version() {
        "public, max-age=31536000, immutable"
    } else {
        "no-cache"
    };
    let headers = [(header::CONTENT_TYPE, asset.content_type), (header::CACHE_CONTROL, kept)];
    (headers, asset.text).into_response()
}
