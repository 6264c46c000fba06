//! From frames to tensors.

use super::resize::Resizer;
use super::rows::{join, repack, split, split_pairs};
use super::scale::{Number, Scale};
use super::three;
use super::yuv::{FromRgb, ToRgb};
use crate::tensor::convert::{check_elements, check_format, check_image, check_spec, check_tensor, rgb_offsets};
use crate::tensor::{ChannelOrder, ColorRange, ConvertError, Image, ImageSpec, ImageTensor, PixelFormat, TensorMut};

/// Converts frames of one description into image tensors of one description, resizing them if the sizes differ.
#[derive(Debug)]
pub struct IntoTensor {
    tensor: ImageTensor,
    source: Source,
    /// One per plane.
    scales: [Scale; 3],
    interleaved_scale: Scale,
    /// A row of the tensor's size, channels apart.
    channels: Vec<u8>,
    /// A row of the tensor's size, channels interleaved.
    interleaved: Vec<u8>,
}

impl IntoTensor {
    /// Prepares a conversion. Fails if a description is not one of a picture; see [`ConvertError`].
    pub fn new(spec: ImageSpec, tensor: ImageTensor) -> Result<Self, ConvertError> {
        check_spec(&spec)?;
        check_format(&spec)?;
        check_tensor(&tensor)?;
        let (from, to) = ((spec.width, spec.height), (tensor.width, tensor.height));
        Ok(IntoTensor {
            source: Source {
                frame: FrameRows::new(spec, tensor.order),
                resizer: (from != to).then(|| Resizer::new(tensor.order.channels(), from, to)),
            },
            scales: std::array::from_fn(|channel| Scale::channel(&tensor, channel)),
            interleaved_scale: Scale::interleaved(&tensor),
            channels: vec![0; tensor.width * 3],
            interleaved: vec![0; tensor.width * 3],
            tensor,
        })
    }

    /// Converts one frame. Fails, and writes nothing, if the planes or the elements are not what was described.
    pub fn run(&mut self, image: &Image<'_>, out: TensorMut<'_>) -> Result<(), ConvertError> {
        check_image(&self.source.frame.spec, image)?;
        check_elements(&self.tensor, out.dtype(), out.len())?;
        self.source.restart();
        match out {
            TensorMut::U8(out) => self.run_numbers(image, out),
            TensorMut::F16(out) => self.run_numbers(image, out),
            TensorMut::F32(out) => self.run_numbers(image, out),
        }
        Ok(())
    }

    fn run_numbers<T: Number>(&mut self, image: &Image<'_>, out: &mut [T]) {
        match (self.tensor.order, self.tensor.planar) {
            (ChannelOrder::Gray, _) => self.run_gray(image, out),
            (_, true) => self.run_planar(image, out),
            (_, false) => self.run_interleaved(image, out),
        }
    }

    fn run_gray<T: Number>(&mut self, image: &Image<'_>, out: &mut [T]) {
        let width = self.tensor.width;
        for (y, out) in out.chunks_exact_mut(width).enumerate() {
            if let Some(out) = T::as_bytes_mut(out) {
                self.source.channels(image, y, [out, &mut [], &mut []]);
            } else {
                let gray = &mut self.channels[..width];
                self.source.channels(image, y, [&mut *gray, &mut [], &mut []]);
                T::write(gray, &self.scales[0], out);
            }
        }
    }

    fn run_planar<T: Number>(&mut self, image: &Image<'_>, out: &mut [T]) {
        let width = self.tensor.width;
        let (first, rest) = out.split_at_mut(width * self.tensor.height);
        let (second, third) = rest.split_at_mut(width * self.tensor.height);
        let planes = first.chunks_exact_mut(width).zip(second.chunks_exact_mut(width));
        for (y, ((a, b), c)) in planes.zip(third.chunks_exact_mut(width)).enumerate() {
            if let (Some(a), Some(b), Some(c)) = (T::as_bytes_mut(a), T::as_bytes_mut(b), T::as_bytes_mut(c)) {
                self.source.channels(image, y, [a, b, c]);
            } else {
                self.source.channels(image, y, three(&mut self.channels, width));
                let rows = self.channels.chunks_exact(width).zip([a, b, c]);
                for ((bytes, out), scale) in rows.zip(&self.scales) {
                    T::write(bytes, scale, out);
                }
            }
        }
    }

    fn run_interleaved<T: Number>(&mut self, image: &Image<'_>, out: &mut [T]) {
        let width = self.tensor.width;
        for (y, out) in out.chunks_exact_mut(width * 3).enumerate() {
            if let Some(row) = self.source.as_it_is(image, y) {
                T::write(row, &self.interleaved_scale, out);
            } else if let Some(out) = T::as_bytes_mut(out) {
                self.source.interleaved(image, y, &mut self.channels, out);
            } else {
                self.source
                    .interleaved(image, y, &mut self.channels, &mut self.interleaved);
                T::write(&self.interleaved, &self.interleaved_scale, out);
            }
        }
    }
}

/// Rows of the tensor's size and in its channels, as bytes.
#[derive(Debug)]
struct Source {
    frame: FrameRows,
    resizer: Option<Resizer>,
}

impl Source {
    /// Forgets the frame before.
    fn restart(&mut self) {
        self.frame.chroma_row = None;
        if let Some(resizer) = &mut self.resizer {
            resizer.restart();
        }
    }

    /// Reads a row, channels apart; gray is the first alone.
    fn channels(&mut self, image: &Image<'_>, y: usize, out: [&mut [u8]; 3]) {
        match &mut self.resizer {
            Some(resizer) => resizer.row(y, out, |y, out| self.frame.channels(image, y, out)),
            None => self.frame.channels(image, y, out),
        }
    }

    /// Reads a row, three channels interleaved.
    fn interleaved(&mut self, image: &Image<'_>, y: usize, channels: &mut [u8], out: &mut [u8]) {
        if self.resizer.is_none() && self.frame.interleaved(image, y, out) {
            return;
        }
        let width = out.len() / 3;
        self.channels(image, y, three(channels, width));
        let [a, b, c] = three(channels, width);
        join::<3>([a, b, c], out);
    }

    /// The frame's own row, if it is what the tensor holds.
    fn as_it_is<'a>(&self, image: &Image<'a>, y: usize) -> Option<&'a [u8]> {
        let same = matches!(
            (self.frame.spec.format, self.frame.order),
            (PixelFormat::Rgb, ChannelOrder::Rgb) | (PixelFormat::Bgr, ChannelOrder::Bgr)
        );
        (same && self.resizer.is_none()).then(|| self.frame.row(image, 0, y))
    }
}

/// Rows of the frame's size, in the tensor's channels, as bytes.
#[derive(Debug)]
struct FrameRows {
    spec: ImageSpec,
    order: ChannelOrder,
    to_rgb: ToRgb,
    to_gray: FromRgb,
    /// A row of RGB whose luma is wanted, channels apart, or the two chroma rows of NV12.
    apart: Vec<u8>,
    /// What the chroma of two rows of the frame adds to red, green and blue.
    terms: [Vec<i16>; 3],
    /// The row of chroma that `terms` is of.
    chroma_row: Option<usize>,
}

impl FrameRows {
    fn new(spec: ImageSpec, order: ChannelOrder) -> Self {
        // Chroma is spread to pairs of pixels: the last of an odd width needs room for its other half.
        let even_width = spec.width.next_multiple_of(2);
        let terms = if spec.format.is_yuv() { even_width } else { 0 };
        FrameRows {
            to_rgb: ToRgb::new(&spec),
            to_gray: FromRgb::new(&spec, ColorRange::Full),
            apart: vec![0; spec.width * 3],
            terms: std::array::from_fn(|_| vec![0; terms]),
            chroma_row: None,
            spec,
            order,
        }
    }

    /// The bytes of one row of a plane.
    fn row<'a>(&self, image: &Image<'a>, plane: usize, y: usize) -> &'a [u8] {
        let (_, len) = self.spec.format.plane_size(plane, self.spec.width, self.spec.height);
        let plane = &image.planes[plane];
        &plane.data[y * plane.stride..][..len]
    }

    /// Reads a row, channels apart; gray is the first alone.
    fn channels(&mut self, image: &Image<'_>, y: usize, out: [&mut [u8]; 3]) {
        if self.order == ChannelOrder::Gray {
            let [gray, ..] = out;
            self.gray(image, y, gray);
            return;
        }
        let [red, green, blue] = if self.order == ChannelOrder::Rgb {
            out
        } else {
            turned(out)
        };
        match self.spec.format {
            PixelFormat::Rgb => split::<3>(self.row(image, 0, y), [red, green, blue]),
            PixelFormat::Bgr => split::<3>(self.row(image, 0, y), [blue, green, red]),
            PixelFormat::Rgba | PixelFormat::Rgbx => split::<4>(self.row(image, 0, y), [red, green, blue]),
            PixelFormat::Bgra | PixelFormat::Bgrx => split::<4>(self.row(image, 0, y), [blue, green, red]),
            // P010 and RGBP are refused by `new`.
            PixelFormat::Nv12 | PixelFormat::I420 | PixelFormat::P010 => {
                self.read_chroma(image, y / 2);
                let terms = self.terms.each_ref().map(Vec::as_slice);
                self.to_rgb.row(self.row(image, 0, y), terms, [red, green, blue]);
            }
            PixelFormat::Gray8 | PixelFormat::Rgbp => {
                self.gray(image, y, red);
                green.copy_from_slice(red);
                blue.copy_from_slice(red);
            }
        }
    }

    /// Reads a row of a format that is interleaved itself; false for the others.
    fn interleaved(&self, image: &Image<'_>, y: usize, out: &mut [u8]) -> bool {
        let Some((offsets, pixel)) = rgb_offsets(self.spec.format) else {
            return false;
        };
        let row = self.row(image, 0, y);
        let swap = (offsets[0] == 0) != (self.order == ChannelOrder::Rgb);
        match (pixel, swap) {
            (3, true) => repack::<3, 3, true>(row, out),
            (3, false) => out.copy_from_slice(row),
            (_, true) => repack::<4, 3, true>(row, out),
            (_, false) => repack::<4, 3, false>(row, out),
        }
        true
    }

    fn gray(&mut self, image: &Image<'_>, y: usize, gray: &mut [u8]) {
        let row = self.row(image, 0, y);
        if let Some((offsets, pixel)) = rgb_offsets(self.spec.format) {
            let [red, green, blue] = three(&mut self.apart, self.spec.width);
            let apart = if offsets[0] == 0 {
                [&mut *red, &mut *green, &mut *blue]
            } else {
                [&mut *blue, green, red]
            };
            if pixel == 3 {
                split::<3>(row, apart)
            } else {
                split::<4>(row, apart)
            }
            let [red, green, blue] = three(&mut self.apart, self.spec.width);
            self.to_gray.luma_row([red, green, blue], gray);
        } else if self.spec.range == ColorRange::Full {
            gray.copy_from_slice(row);
        } else {
            self.to_rgb.gray(row, gray);
        }
    }

    fn read_chroma(&mut self, image: &Image<'_>, y: usize) {
        if self.chroma_row == Some(y) {
            return;
        }
        self.chroma_row = Some(y);
        let terms = self.terms.each_mut().map(Vec::as_mut_slice);
        let (_, len) = self.spec.format.plane_size(1, self.spec.width, self.spec.height);
        let row = |plane: usize| &image.planes[plane].data[y * image.planes[plane].stride..][..len];
        if self.spec.format == PixelFormat::Nv12 {
            let (blue, rest) = self.apart.split_at_mut(len / 2);
            let red = &mut rest[..len / 2];
            split_pairs(row(1), blue, red);
            self.to_rgb.chroma_terms(blue, red, terms);
        } else {
            self.to_rgb.chroma_terms(row(1), row(2), terms);
        }
    }
}

fn turned<T>([a, b, c]: [T; 3]) -> [T; 3] {
    [c, b, a]
}
