//! Pages of what was published: `entities` reads it, the others show it.

pub(crate) mod airlines;
pub(crate) mod airplanes;
pub(crate) mod airports;
pub(crate) mod delays;
pub(crate) mod entities;
pub(crate) mod flights;
pub(crate) mod model;
pub(crate) mod search;
