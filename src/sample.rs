//! From a prompt to a clip: text → noise → guided DDIM → frames.
//!
//! [`Pipeline`] borrows the networks, so that training can sample its own model between steps; a [`Studio`] reads them from
//! files. Writes no file.

mod studio;

pub use studio::{Cast, Studio};

use std::rc::Rc;

use tch::{Device, Kind, Tensor, no_grad};

use crate::{
    diffusion::{Ddim, NoiseSchedule, guided},
    frame::Frame,
    model::{
        clip::TextEncoder,
        unet::{Reading, Start, UNet},
        vae::Vae,
    },
    native,
    tokenizer::Tokenizer,
};

/// Pixels that go through the VAE together: those of one frame, or of several that are small.
const DECODED_TOGETHER: i64 = 2 * 128 * 128;

/// The networks and the schedule that sampling uses.
pub struct Pipeline<'a> {
    /// Tokenizer.
    pub tokenizer: &'a Tokenizer,
    /// Text encoder, float32.
    pub text_encoder: &'a TextEncoder,
    /// VAE, float32.
    pub vae: &'a Vae,
    /// UNet.
    pub unet: &'a UNet,
    /// Noise schedule.
    pub schedule: &'a NoiseSchedule,
    /// Where the UNet is.
    pub device: Device,
    /// Where the text encoder and the VAE are: there too, or in host memory while a run can do without them.
    pub aside: Device,
    /// What the UNet computes in.
    pub kind: Kind,
}

/// What a [`Pipeline`] borrows, owned.
#[derive(Debug)]
pub struct Networks {
    /// Tokenizer.
    pub tokenizer: Rc<Tokenizer>,
    /// Text encoder, float32.
    pub text_encoder: Rc<TextEncoder>,
    /// VAE, float32.
    pub vae: Rc<Vae>,
    /// UNet.
    pub unet: UNet,
    /// Noise schedule.
    pub schedule: NoiseSchedule,
    /// Where the UNet is.
    pub device: Device,
    /// Where the text encoder and the VAE are.
    pub aside: Device,
    /// What the UNet computes in.
    pub kind: Kind,
}

impl Networks {
    /// Sampling with them as they stand.
    pub fn pipeline(&self) -> Pipeline<'_> {
        Pipeline {
            tokenizer: &self.tokenizer,
            text_encoder: &self.text_encoder,
            vae: &self.vae,
            unet: &self.unet,
            schedule: &self.schedule,
            device: self.device,
            aside: self.aside,
            kind: self.kind,
        }
    }
}

/// What to sample.
#[derive(Clone, Debug, PartialEq)]
pub struct Request {
    /// The prompt.
    pub prompt: String,
    /// What guidance steers away from.
    pub negative_prompt: String,
    /// Seed of the noise.
    pub seed: i64,
    /// Denoising steps.
    pub steps: i64,
    /// Classifier-free guidance; 1 and less turn it off.
    pub guidance_scale: f64,
    /// Width in pixels, a multiple of the VAE's downscaling.
    pub width: i64,
    /// Height in pixels, likewise.
    pub height: i64,
    /// Frames.
    pub frames: i64,
}

impl Pipeline<'_> {
    /// The shape of a request's latents, `[1, C, F, h, w]`.
    pub fn latent_shape(&self, request: &Request) -> [i64; 5] {
        let config = self.vae.config();
        let scale = config.downscale();
        [1, config.latent_channels, request.frames, request.height / scale, request.width / scale]
    }

    /// Noise from the CPU generator: the same on every device, and what `torch.manual_seed(seed); torch.randn(shape)` gives.
    pub fn noise(&self, request: &Request) -> Tensor {
        tch::manual_seed(request.seed);
        Tensor::randn(self.latent_shape(request), (Kind::Float, Device::Cpu))
    }

    /// The states of a list of prompts, `[B, L, D]` float32.
    pub fn text_states(&self, prompts: &[&str]) -> Tensor {
        let ids: Vec<i64> = prompts.iter().flat_map(|prompt| self.tokenizer.encode(prompt)).collect();
        let ids = Tensor::from_slice(&ids).view([prompts.len() as i64, -1]).to_device(self.aside);
        no_grad(|| self.text_encoder.forward(&ids)).to_device(self.device)
    }

    /// Denoises `noise` `[1, C, F, h, w]`; `after(i)` hears of each step, and may stop it with an error.
    pub fn denoise<E>(
        &self,
        request: &Request,
        noise: &Tensor,
        after: impl FnMut(usize) -> Result<(), E>,
    ) -> Result<Tensor, E> {
        self.denoise_together(std::slice::from_ref(request), noise, after)
    }

    /// Denoises `noise` `[B, C, F, h, w]`, one row per request, in one batch. Steps and guidance are the first request's; a
    /// clip is the same as by itself, within rounding.
    pub fn denoise_together<E>(
        &self,
        requests: &[Request],
        noise: &Tensor,
        after: impl FnMut(usize) -> Result<(), E>,
    ) -> Result<Tensor, E> {
        let Request { steps, guidance_scale, .. } = requests[0];
        let guide = guidance_scale > 1.0;
        let negative = requests.iter().filter(|_| guide).map(|request| request.negative_prompt.as_str());
        let prompts = negative.chain(requests.iter().map(|request| request.prompt.as_str()));
        let text = self.text_states(&prompts.collect::<Vec<_>>()).to_kind(self.kind);
        // On the CPU the rows are shared out to libtorch's threads.
        let parts = if self.device.is_cuda() { 1 } else { native::parts(text.size()[0] as usize) };
        let readings = no_grad(|| self.unet.read(&text)).split(parts);
        let sampler = Ddim::new(self.schedule, steps);
        let predict = |x: &Tensor, timestep: i64| {
            let timesteps = Tensor::full([x.size()[0]], timestep, (Kind::Int64, self.device));
            // What comes before the first look at a text is the same for both halves of guidance.
            let start = self.unet.begin(x, &timesteps, self.kind).repeated(if guide { 2 } else { 1 });
            let output = self.finish(&start, &readings);
            if guide { guided(&output, guidance_scale) } else { output }
        };
        no_grad(|| sampler.sample(noise.to_device(self.device), predict, after))
    }

    /// What the UNet makes of a start under the texts that were read, in float32; each part in a thread of its own.
    fn finish(&self, start: &Start, readings: &[Reading]) -> Tensor {
        let finish = |unet: &UNet, (start, reading): (Start, Reading)| {
            no_grad(|| unet.finish(&start, &reading)).to_kind(Kind::Float)
        };
        let rows: Vec<_> = start.split(readings.len()).into_iter().zip(readings.iter().map(Reading::shared)).collect();
        let mut outputs = Vec::new();
        match rows.len() {
            1 => outputs.extend(rows.into_iter().map(|row| finish(self.unet, row))),
            _ => native::side_by_side(self.unet, rows, finish, |output| outputs.push(output)),
        }
        Tensor::cat(&outputs, 0)
    }

    /// Latents `[1, C, F, h, w]` to frames, [`frames_together`] at a time. Values are truncated to 8 bits, as the official code does.
    pub fn decode(&self, latents_bcfhw: &Tensor) -> Vec<Frame> {
        let latents_fchw = latents_bcfhw.squeeze_dim(0).transpose(0, 1);
        let together = frames_together(&latents_fchw, self.vae.config().downscale());
        let pictures = latents_fchw.split(together, 0).into_iter().map(|latents| self.decode_pictures(&latents));
        pictures.flat_map(|pictures| pictures.split(1, 0)).map(|picture| frame(&picture)).collect()
    }

    /// Latents `[N, C, h, w]` to pictures `[N, 3, H, W]` in [0, 1].
    fn decode_pictures(&self, latents: &Tensor) -> Tensor {
        no_grad(|| {
            let latents = latents.to_device(self.aside) / self.vae.config().scaling_factor;
            to_unit(&self.vae.decode(&latents.to_kind(self.vae.kind())).to_kind(Kind::Float))
        })
    }
}

/// How many frames of latents `[…, h, w]` a VAE that makes pictures `downscale` times as large decodes at a time.
pub fn frames_together(latents: &Tensor, downscale: i64) -> i64 {
    let sides: i64 = latents.size().iter().rev().take(2).product();
    (DECODED_TOGETHER / (sides * downscale * downscale)).max(1)
}

/// What `vae` makes of a picture, whose sides it must divide: encoded to the mean, and decoded.
pub fn reconstruct(vae: &Vae, picture: &Frame, device: Device) -> Frame {
    let (height, width) = (picture.height as i64, picture.width as i64);
    let bytes = Tensor::from_slice(&picture.rgb).view([1, height, width, 3]).permute([0, 3, 1, 2]);
    let pixels = bytes.to_device(device).to_kind(Kind::Float) / 127.5 - 1.0;
    frame(&no_grad(|| to_unit(&vae.decode(&vae.encode(&pixels).mean))))
}

/// From [-1, 1] to [0, 1].
fn to_unit(picture: &Tensor) -> Tensor {
    (picture / 2.0 + 0.5).clamp(0.0, 1.0)
}

/// `[1, 3, H, W]` in [0, 1] to 8 bits.
fn frame(picture: &Tensor) -> Frame {
    let (_, _, height, width) = picture.size4().expect("[1, 3, H, W]");
    let bytes_hwc = (picture.squeeze_dim(0) * 255.0).to_kind(Kind::Uint8).permute([1, 2, 0]).contiguous();
    let mut rgb = vec![0; (3 * height * width) as usize];
    bytes_hwc.to_device(Device::Cpu).copy_data_u8(&mut rgb, 3 * (height * width) as usize);
    Frame { width: width as usize, height: height as usize, rgb }
}
