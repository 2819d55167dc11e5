//! One test binary, so that libtorch is linked once.

mod golden {
    //! Against numbers that diffusers and transformers computed: `scripts/golden` makes them, its README describes them.
    mod motion_options;
    mod networks;
    mod sampling;
    mod schedules;
    mod tokenizer;
    mod training;
    mod unet;
}
mod selfcheck;
mod support;
mod weights;
