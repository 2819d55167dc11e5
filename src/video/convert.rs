//! Between FFmpeg's pixel layouts and packed RGB.
//!
//! FFmpeg's scaler is called through its C interface here, because the crate's wrapper drops its return value and cannot
//! tell it which matrix a YUV picture was made with.

use ffmpeg_next::format::Pixel;
use ffmpeg_next::software::scaling::{Context, Flags};
use ffmpeg_next::{Error, color, ffi, frame};

use crate::frame::{Frame, Planes};

/// Without the two rounding flags, colours are three levels off on average.
const FLAGS: Flags =
    Flags::BICUBIC.union(Flags::FULL_CHR_H_INT).union(Flags::FULL_CHR_H_INP).union(Flags::ACCURATE_RND);

/// Layouts that become the same levels in planes as packed.
const PLANAR: [Pixel; 6] =
    [Pixel::YUV420P, Pixel::YUV422P, Pixel::YUV444P, Pixel::YUVJ420P, Pixel::YUVJ422P, Pixel::YUVJ444P];

/// A scaler between two pixel layouts of one size, kept while neither changes, with the picture that it fills.
#[derive(Default)]
pub(super) struct Converter {
    scaler: Option<(Key, Context)>,
    output: Option<frame::Video>,
    /// Planes of a picture that FFmpeg gives packed.
    planes: Vec<u8>,
}

#[derive(Clone, PartialEq)]
struct Key {
    from: Pixel,
    to: Pixel,
    size: (u32, u32),
    matrix: i32,
    full_range: bool,
}

impl Converter {
    /// A decoded picture as packed RGB24.
    pub(super) fn rgb(&mut self, picture: &frame::Video) -> Result<Frame, Error> {
        let packed = self.convert(picture, Pixel::RGB24)?;
        let (width, height, stride) = (packed.width() as usize, packed.height() as usize, packed.stride(0));
        let mut rgb = Vec::with_capacity(3 * width * height);
        packed.data(0).chunks(stride).take(height).for_each(|row| rgb.extend_from_slice(&row[..3 * width]));
        Ok(Frame { width, height, rgb })
    }

    /// A decoded picture as planes of red, green and blue: the same levels as [`Converter::rgb`] gives. FFmpeg's scaler makes them
    /// of planar YUV several times faster, as it has vector code for planes only.
    pub(super) fn planes(&mut self, picture: &frame::Video) -> Result<Planes<'_>, Error> {
        if !PLANAR.contains(&picture.format()) {
            let frame = self.rgb(picture)?;
            return Ok(frame.planes(&mut self.planes));
        }
        let planar = self.convert(picture, Pixel::GBRP)?;
        let (width, height, stride) = (planar.width() as usize, planar.height() as usize, planar.stride(0));
        if (1..3).any(|plane| planar.stride(plane) != stride) {
            return Err(Error::InvalidData);
        }
        Ok(Planes { width, height, stride, rgb: [planar.data(2), planar.data(0), planar.data(1)] })
    }

    /// Packed RGB24 in the layout `to` that an encoder wants.
    pub(super) fn encodable(&mut self, frame: &Frame, to: Pixel) -> Result<frame::Video, Error> {
        let mut picture = allocate(Pixel::RGB24, frame.width as u32, frame.height as u32)?;
        let (stride, row_bytes) = (picture.stride(0), 3 * frame.width);
        for (row, source) in picture.data_mut(0).chunks_mut(stride).zip(frame.rgb.chunks(row_bytes)) {
            row[..row_bytes].copy_from_slice(source);
        }
        self.convert(&picture, to)?;
        // The encoder may keep it: the next one gets a buffer of its own.
        Ok(self.output.take().expect("it was just filled"))
    }

    fn convert(&mut self, picture: &frame::Video, to: Pixel) -> Result<&frame::Video, Error> {
        let key = Key {
            from: picture.format(),
            to,
            size: (picture.width(), picture.height()),
            matrix: matrix(picture.color_space()),
            full_range: picture.color_range() == color::Range::JPEG,
        };
        if key.size.0 == 0 || key.size.1 == 0 {
            return Err(Error::InvalidData);
        }
        if self.scaler.as_ref().is_none_or(|(have, _)| *have != key) {
            (self.scaler, self.output) = (Some((key.clone(), scaler(&key)?)), None);
        }
        let output = match self.output.take() {
            Some(output) => output,
            None => allocate(to, key.size.0, key.size.1)?,
        };
        let output = self.output.insert(output);
        scale(&mut self.scaler.as_mut().expect("was set above").1, picture, output)?;
        Ok(output)
    }
}

/// The scaler's name for the matrix of a YUV picture. Files that do not say are taken for BT.601, as FFmpeg does.
fn matrix(space: color::Space) -> i32 {
    match space {
        color::Space::BT709 => ffi::SWS_CS_ITU709,
        color::Space::FCC => ffi::SWS_CS_FCC,
        color::Space::SMPTE240M => ffi::SWS_CS_SMPTE240M,
        color::Space::BT2020NCL | color::Space::BT2020CL => ffi::SWS_CS_BT2020,
        _ => ffi::SWS_CS_ITU601,
    }
}

fn scaler(key: &Key) -> Result<Context, Error> {
    let (width, height) = key.size;
    let mut context = Context::get(key.from, width, height, key.to, width, height, FLAGS)?;
    // Ranges: 0 is 16 to 235, 1 is 0 to 255. RGB ignores them. The `yuvj` layouts carry full range in their name, and the
    // scaler has seen to that already.
    let jpeg_layout = matches!(key.from, Pixel::YUVJ420P | Pixel::YUVJ422P | Pixel::YUVJ444P | Pixel::YUVJ440P);
    let source_range = i32::from(key.full_range || jpeg_layout);
    // SAFETY: `context` is a live scaler, and the coefficient tables are static arrays of FFmpeg. The call refuses layouts
    // to which no matrix applies by returning -1, which changes nothing.
    unsafe {
        let from = ffi::sws_getCoefficients(key.matrix);
        let to = ffi::sws_getCoefficients(ffi::SWS_CS_ITU601);
        ffi::sws_setColorspaceDetails(context.as_mut_ptr(), from, source_range, to, 0, 0, 1 << 16, 1 << 16);
    }
    Ok(context)
}

/// A picture with its own buffer; the crate's constructor does not look whether there was memory for one.
fn allocate(format: Pixel, width: u32, height: u32) -> Result<frame::Video, Error> {
    let picture = frame::Video::new(format, width, height);
    // SAFETY: only looks at a pointer of the frame that was just made.
    if unsafe { picture.is_empty() } {
        return Err(Error::Other { errno: ffmpeg_next::error::ENOMEM });
    }
    Ok(picture)
}

fn scale(scaler: &mut Context, from: &frame::Video, to: &mut frame::Video) -> Result<(), Error> {
    // SAFETY: both pictures own buffers of the size and layout that the scaler was made for (see `Converter::convert`).
    let rows = unsafe {
        let (source, target) = (&*from.as_ptr(), &*to.as_mut_ptr());
        ffi::sws_scale(
            scaler.as_mut_ptr(),
            source.data.as_ptr().cast(),
            source.linesize.as_ptr(),
            0,
            from.height() as i32,
            target.data.as_ptr(),
            target.linesize.as_ptr(),
        )
    };
    if rows == to.height() as i32 { Ok(()) } else { Err(Error::from(rows.min(ffi::AVERROR_UNKNOWN))) }
}
