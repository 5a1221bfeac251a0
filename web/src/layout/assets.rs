//! What the pages load: style, script and icon, compiled in. Their URLs hold a hash of their
//! content, so that browsers keep them for ever and still never show an old one.

/// A file that is compiled in.
pub(crate) struct Asset {
    pub(crate) name: &'static str,
    pub(crate) content_type: &'static str,
    pub(crate) text: &'static str,
}

/// All of them.
pub(crate) const ASSETS: [Asset; 3] = [STYLE, SCRIPT, ICON];

pub(crate) const STYLE: Asset = Asset {
    name: "style.css",
    content_type: "text/css; charset=utf-8",
    text: include_str!("../../static/style.css"),
};
pub(crate) const SCRIPT: Asset = Asset {
    name: "predict.js",
    content_type: "text/javascript; charset=utf-8",
    text: include_str!("../../static/predict.js"),
};
pub(crate) const ICON: Asset = Asset {
    name: "icon.svg",
    content_type: "image/svg+xml",
    text: include_str!("../../static/icon.svg"),
};

impl Asset {
    /// Where the page finds this very content.
    pub(crate) fn url(&self) -> String {
        format!("/static/{}?v={}", self.name, self.version())
    }

    /// Changes with the content.
    pub(crate) fn version(&self) -> String {
        format!("{:016x}", fnv1a(self.text.as_bytes()))
    }
}

/// FNV-1a, 64 bits (Fowler, Noll, Vo): distinguishes versions, secures nothing.
pub(crate) fn fnv1a(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3)
    })
}
