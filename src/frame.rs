//! One picture in memory: what videos are decoded to and clips are made of.

/// One picture of packed RGB24.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    /// Pixels per row.
    pub width: usize,
    /// Rows.
    pub height: usize,
    /// `3 * width * height` bytes, row by row, red first.
    pub rgb: Vec<u8>,
}

/// One picture as three planes of bytes, wherever they lie.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Planes<'a> {
    /// Pixels per row.
    pub width: usize,
    /// Rows.
    pub height: usize,
    /// Bytes from one row of a plane to the next.
    pub stride: usize,
    /// Red, green and blue.
    pub rgb: [&'a [u8]; 3],
}

impl Frame {
    /// The picture's planes, made in `buffer`.
    pub(crate) fn planes<'a>(&self, buffer: &'a mut Vec<u8>) -> Planes<'a> {
        let (width, height, area) = (self.width, self.height, self.width * self.height);
        buffer.resize(3 * area, 0);
        let (red, rest) = buffer.split_at_mut(area);
        let (green, blue) = rest.split_at_mut(area);
        for (at, &[r, g, b]) in self.rgb.as_chunks::<3>().0.iter().enumerate() {
            (red[at], green[at], blue[at]) = (r, g, b);
        }
        Planes { width, height, stride: width, rgb: [red, green, blue] }
    }

    /// A frame of the one colour `rgb`.
    pub fn filled(width: usize, height: usize, rgb: [u8; 3]) -> Frame {
        Frame { width, height, rgb: rgb.repeat(width * height) }
    }

    /// The colour of the pixel at column `x` and row `y`, which have to lie inside.
    pub fn pixel(&self, x: usize, y: usize) -> [u8; 3] {
        let at = 3 * (y * self.width + x);
        [self.rgb[at], self.rgb[at + 1], self.rgb[at + 2]]
    }

    /// Copies `other` so that its upper left corner comes to lie at column `x` and row `y`. It has to fit.
    pub(crate) fn paste(&mut self, other: &Frame, x: usize, y: usize) {
        for row in 0..other.height {
            let (from, to) = (3 * row * other.width, 3 * ((y + row) * self.width + x));
            self.rgb[to..to + 3 * other.width].copy_from_slice(&other.rgb[from..from + 3 * other.width]);
        }
    }
}
