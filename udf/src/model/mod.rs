//! The model as an artefact ([`artefact`]), made ready to score ([`scorer`]), the reasons of a
//! score ([`attribution`]), and whether what is scored is still like the training data ([`drift`]).

pub mod artefact;
pub mod attribution;
pub mod drift;
pub mod scorer;
