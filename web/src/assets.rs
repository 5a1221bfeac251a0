//! What the pages load: style, script and icon, compiled in. Their URLs hold a hash of their
//! content, so that browsers keep them for ever and still never show an old one.

use axum::extract::{Path, Query};
use axum::http::header;
use axum::response::{IntoResponse, Response};
use serde::Deserialize;

use crate::predict;

/// A file that is compiled in.
pub(crate) struct Asset {
    name: &'static str,
    content_type: &'static str,
    text: &'static str,
}

pub(crate) const STYLE: Asset = Asset {
    name: "style.css",
    content_type: "text/css; charset=utf-8",
    text: include_str!("../static/style.css"),
};
pub(crate) const SCRIPT: Asset = Asset {
    name: "predict.js",
    content_type: "text/javascript; charset=utf-8",
    text: include_str!("../static/predict.js"),
};
pub(crate) const ICON: Asset = Asset {
    name: "icon.svg",
    content_type: "image/svg+xml",
    text: include_str!("../static/icon.svg"),
};

impl Asset {
    /// Where the page finds this very content.
    pub(crate) fn url(&self) -> String {
        format!("/static/{}?v={}", self.name, self.version())
    }

    fn version(&self) -> String {
        format!("{:016x}", fnv1a(self.text.as_bytes()))
    }
}

#[derive(Deserialize)]
pub(crate) struct Wanted {
    #[serde(default)]
    v: String,
}

/// GET `/static/{name}`.
pub(crate) async fn asset(Path(name): Path<String>, Query(wanted): Query<Wanted>) -> Response {
    let Some(asset) = [STYLE, SCRIPT, ICON].into_iter().find(|asset| asset.name == name) else {
        return predict::not_found().await;
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

/// FNV-1a, 64 bits (Fowler, Noll, Vo): tells versions apart, guards nothing.
pub(crate) fn fnv1a(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3)
    })
}
