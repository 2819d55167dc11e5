//! AnimateDiff on libtorch.
#![cfg_attr(not(test), warn(missing_docs))]
