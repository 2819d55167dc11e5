//! What generated clips show, measured on their bytes: no network judges, and nothing has to be learned.
//!
//! Everything here was made for the world of [`shapes`](crate::data::shapes), where the truth can be rendered, and for
//! pictures that a small model made of it: slightly wrong colours, soft edges, noise. In reading order:
//!
//! - [`segment`]: the shape and its background in one frame;
//! - [`classify`]: which shape of which colour it is;
//! - [`track`]: how it moves along a clip, and which motion's name that deserves;
//! - [`jump`]: what changes from frame to frame beyond that;
//! - [`watermark`], [`camera`], [`style`]: the corpus's mark, the camera's move, and how far two sets of frames are apart.
//!
//! Positions are in pixels with pixel centres at halves, x to the right and y down; angles are clockwise as one sees them.

mod mask;
mod plane;

pub mod camera;
pub mod classify;
pub mod jump;
pub mod segment;
pub mod style;
pub mod track;
pub mod watermark;

pub use mask::Mask;
