//! Models under the data root: the registry of artefacts with the champion, who became it and why,
//! how well a model does, and the cards that pages show.

pub mod cards;
pub mod evaluation;
pub mod promotion;
pub mod registry;
