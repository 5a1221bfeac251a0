//! The model as an artefact ([`artefact`]), with what its training left aside ([`holdout`]), made
//! ready to score ([`scorer`]) and as sure as it is right ([`calibration`]), the reasons of a score
//! ([`attribution`]), and whether what is scored is still like the training data ([`drift`]).

pub mod artefact;
pub mod attribution;
pub mod calibration;
pub mod drift;
pub(crate) mod flat;
pub mod holdout;
pub(crate) mod masks;
pub mod scorer;
