//! From tensors to frames.

use super::rows::{join, join_pairs, repack, split};
use super::scale::{Number, Scale};
use super::three;
use super::yuv::FromRgb;
use crate::tensor::convert::{
    check_elements, check_format, check_image_mut, check_same_size, check_spec, check_tensor, rgb_offsets,
};
use crate::tensor::{
    ChannelOrder, ColorRange, ConvertError, ImageMut, ImageSpec, ImageTensor, PixelFormat, TensorRef, Written,
};

/// Converts image tensors of one description into frames of one description, both of the same size.
#[derive(Debug)]
pub struct FromTensor {
    spec: ImageSpec,
    rows: TensorRows,
    from_rgb: FromRgb,
    /// Two rows, red, green and blue apart, as chroma is that of two rows. Each is as long as the next even width.
    pair: [Vec<u8>; 2],
    /// A row, channels interleaved.
    interleaved: Vec<u8>,
    /// The two chroma rows of NV12.
    chroma: Vec<u8>,
}

impl FromTensor {
    /// Prepares a conversion. Fails if a description is not one of a picture, or the sizes differ; see
    /// [`ConvertError`].
    pub fn new(tensor: ImageTensor, spec: ImageSpec) -> Result<Self, ConvertError> {
        check_spec(&spec)?;
        check_format(&spec)?;
        check_tensor(&tensor)?;
        check_same_size(&tensor, &spec)?;
        let even_width = spec.width.next_multiple_of(2);
        Ok(FromTensor {
            rows: TensorRows::new(tensor),
            from_rgb: FromRgb::new(&spec, spec.range),
            pair: std::array::from_fn(|_| vec![0; even_width * 3]),
            interleaved: vec![0; spec.width * 3],
            chroma: vec![0; even_width],
            spec,
        })
    }

    /// Converts one tensor, and counts the values that are not finite. Fails, and writes nothing, if the planes or the
    /// elements are not what was described.
    pub fn run(&mut self, data: TensorRef<'_>, image: &mut ImageMut<'_>) -> Result<Written, ConvertError> {
        check_image_mut(&self.spec, image)?;
        check_elements(&self.rows.tensor, data.dtype(), data.len())?;
        self.rows.non_finite = 0;
        match data {
            TensorRef::U8(data) => self.run_numbers(data, image),
            TensorRef::F16(data) => self.run_numbers(data, image),
            TensorRef::F32(data) => self.run_numbers(data, image),
            TensorRef::I32(_) | TensorRef::I64(_) => return Err(ConvertError::DType { got: data.dtype() }),
        }
        Ok(Written {
            non_finite: self.rows.non_finite,
        })
    }

    fn run_numbers<T: Number>(&mut self, data: &[T], image: &mut ImageMut<'_>) {
        let color = self.rows.tensor.order != ChannelOrder::Gray;
        match rgb_offsets(self.spec.format) {
            Some((offsets, pixel)) if color && !self.rows.tensor.planar => {
                self.run_interleaved(data, image, offsets[0] == 0, pixel);
            }
            Some((offsets, pixel)) => self.run_joined(data, image, offsets[0] == 0, pixel),
            None if color => self.run_luma(data, image),
            None => self.run_gray(data, image),
        }
    }

    /// Interleaved tensors to RGB formats.
    fn run_interleaved<T: Number>(&mut self, data: &[T], image: &mut ImageMut<'_>, red_first: bool, pixel: usize) {
        let swap = red_first != (self.rows.tensor.order == ChannelOrder::Rgb);
        for y in 0..self.spec.height {
            let out = row_mut(&self.spec, image, 0, y);
            if pixel == 3 && !swap {
                self.rows.interleaved(data, y, out);
                continue;
            }
            let row = if let Some(row) = T::as_bytes(self.rows.interleaved_row(data, y)) {
                row
            } else {
                self.rows.interleaved(data, y, &mut self.interleaved);
                &self.interleaved
            };
            match (pixel, swap) {
                (3, _) => repack::<3, 3, true>(row, out),
                (_, true) => repack::<3, 4, true>(row, out),
                (_, false) => repack::<3, 4, false>(row, out),
            }
        }
    }

    /// Planar and gray tensors to RGB formats.
    fn run_joined<T: Number>(&mut self, data: &[T], image: &mut ImageMut<'_>, red_first: bool, pixel: usize) {
        let width = self.spec.width;
        for y in 0..self.spec.height {
            let scratch = &mut self.pair[0];
            self.rows.rgb(data, y, three(scratch, width), &mut self.interleaved);
            let [red, green, blue] = shared(three(scratch, width));
            let channels = if red_first {
                [red, green, blue]
            } else {
                [blue, green, red]
            };
            let out = row_mut(&self.spec, image, 0, y);
            if pixel == 3 {
                join::<3>(channels, out)
            } else {
                join::<4>(channels, out)
            }
        }
    }

    /// RGB tensors to formats with luma.
    fn run_luma<T: Number>(&mut self, data: &[T], image: &mut ImageMut<'_>) {
        let ImageSpec { width, height, .. } = self.spec;
        let even_width = width.next_multiple_of(2);
        for y in 0..height {
            let row = &mut self.pair[y % 2];
            self.rows.rgb(
                data,
                y,
                three(row, even_width).map(|row| &mut row[..width]),
                &mut self.interleaved,
            );
            let rgb = shared(three(row, even_width)).map(|row| &row[..width]);
            self.from_rgb.luma_row(rgb, row_mut(&self.spec, image, 0, y));
            if width != even_width {
                // The last pixel of an odd width has no neighbour. As its own neighbour it leaves the mean as it is.
                for row in three(row, even_width) {
                    row[width] = row[width - 1];
                }
            }
            // Likewise the last row of an odd height.
            if self.spec.format.is_yuv() && (y % 2 == 1 || y + 1 == height) {
                self.write_chroma(image, y / 2, y % 2);
            }
        }
    }

    /// Writes a row of chroma: that of the first row of `pair` and the given one.
    fn write_chroma(&mut self, image: &mut ImageMut<'_>, y: usize, lower: usize) {
        let len = self.spec.width.div_ceil(2);
        let rgb = |row: usize| -> [&[u8]; 3] {
            std::array::from_fn(|channel| &self.pair[row][channel * len * 2..][..len * 2])
        };
        if self.spec.format == PixelFormat::Nv12 {
            let (blue, red) = self.chroma.split_at_mut(len);
            self.from_rgb.chroma_row(rgb(0), rgb(lower), blue, red);
            join_pairs(blue, red, row_mut(&self.spec, image, 1, y));
        } else {
            let [_, blue, red] = &mut image.planes;
            let blue = &mut blue.data[y * blue.stride..][..len];
            let red = &mut red.data[y * red.stride..][..len];
            self.from_rgb.chroma_row(rgb(0), rgb(lower), blue, red);
        }
    }

    /// Gray tensors to formats with luma.
    fn run_gray<T: Number>(&mut self, data: &[T], image: &mut ImageMut<'_>) {
        for y in 0..self.spec.height {
            let out = row_mut(&self.spec, image, 0, y);
            if self.spec.range == ColorRange::Full {
                self.rows.gray(data, y, out);
            } else {
                let gray = &mut self.interleaved[..self.spec.width];
                self.rows.gray(data, y, gray);
                self.from_rgb.luma_of_gray(gray, out);
            }
        }
        for plane in 1..self.spec.format.planes() {
            for y in 0..self.spec.height.div_ceil(2) {
                row_mut(&self.spec, image, plane, y).fill(128);
            }
        }
    }
}

/// Rows of a tensor as bytes.
#[derive(Debug)]
struct TensorRows {
    tensor: ImageTensor,
    /// One per plane.
    scales: [Scale; 3],
    interleaved_scale: Scale,
    non_finite: usize,
}

impl TensorRows {
    fn new(tensor: ImageTensor) -> Self {
        TensorRows {
            scales: std::array::from_fn(|channel| Scale::channel(&tensor, channel)),
            interleaved_scale: Scale::interleaved(&tensor),
            non_finite: 0,
            tensor,
        }
    }

    /// Reads a row into red, green and blue. `scratch` is as long as the interleaved row.
    fn rgb<T: Number>(&mut self, data: &[T], y: usize, out: [&mut [u8]; 3], scratch: &mut [u8]) {
        if self.tensor.order == ChannelOrder::Gray {
            let [red, green, blue] = out;
            self.gray(data, y, red);
            green.copy_from_slice(red);
            blue.copy_from_slice(red);
            return;
        }
        let [red, green, blue] = out;
        let out = if self.tensor.order == ChannelOrder::Rgb {
            [red, green, blue]
        } else {
            [blue, green, red]
        };
        if !self.tensor.planar {
            if let Some(row) = T::as_bytes(self.interleaved_row(data, y)) {
                split::<3>(row, out);
            } else {
                self.interleaved(data, y, scratch);
                split::<3>(scratch, out);
            }
            return;
        }
        let ImageTensor { width, height, .. } = self.tensor;
        for (channel, out) in out.into_iter().enumerate() {
            let numbers = &data[(channel * height + y) * width..][..width];
            self.non_finite += read(numbers, &self.scales[channel], out);
        }
    }

    /// Reads a row of a gray tensor.
    fn gray<T: Number>(&mut self, data: &[T], y: usize, out: &mut [u8]) {
        let width = self.tensor.width;
        self.non_finite += read(&data[y * width..][..width], &self.scales[0], out);
    }

    /// Reads a row of an interleaved tensor.
    fn interleaved<T: Number>(&mut self, data: &[T], y: usize, out: &mut [u8]) {
        let row = self.interleaved_row(data, y);
        self.non_finite += read(row, &self.interleaved_scale, out);
    }

    fn interleaved_row<'a, T>(&self, data: &'a [T], y: usize) -> &'a [T] {
        let len = self.tensor.width * 3;
        &data[y * len..][..len]
    }
}

/// Numbers to bytes; how many of them are not finite. They are counted only where there is one: there seldom is.
fn read<T: Number>(numbers: &[T], scale: &Scale, bytes: &mut [u8]) -> usize {
    if T::read(numbers, scale, bytes) {
        numbers.iter().filter(|number| !number.to_f32().is_finite()).count()
    } else {
        0
    }
}

/// The bytes of one row of a plane.
fn row_mut<'a>(spec: &ImageSpec, image: &'a mut ImageMut<'_>, plane: usize, y: usize) -> &'a mut [u8] {
    let (_, len) = spec.format.plane_size(plane, spec.width, spec.height);
    let plane = &mut image.planes[plane];
    &mut plane.data[y * plane.stride..][..len]
}

fn shared([a, b, c]: [&mut [u8]; 3]) -> [&[u8]; 3] {
    [a, b, c]
}
