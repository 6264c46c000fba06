//! Frames of noise, in main memory and on the device. A GPU is faster on zeros than on what it will be given.

use std::sync::Arc;

use anyhow::Result;
use comfy_core::cuda::{Device, DeviceBuffer, DeviceTensor, Pinned, Stream};
use comfy_core::tensor::{
    ChannelOrder, ColorRange, DType, DeviceImage, DevicePlane, Image, ImageMut, ImageSpec, ImageTensor, Matrix,
    PixelFormat, Plane, PlaneMut,
};

/// Rows begin where decoders let them begin.
const ALIGN: usize = 256;

/// Bytes that nobody can guess or compress.
pub(crate) fn noise(len: usize, seed: u64) -> Vec<u8> {
    // SplitMix64.
    let mut state = seed;
    let mut bytes = Vec::with_capacity(len + 8);
    while bytes.len() < len {
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = state;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        bytes.extend_from_slice(&(z ^ (z >> 31)).to_le_bytes());
    }
    bytes.truncate(len);
    bytes
}

pub(crate) fn spec(format: PixelFormat, width: usize, height: usize) -> ImageSpec {
    ImageSpec {
        format,
        width,
        height,
        matrix: Matrix::Bt709,
        range: ColorRange::Limited,
    }
}

/// A batch's image, red, green and blue from 0 to 1 in planes, as most models take it.
pub(crate) fn tensor(dtype: DType, width: usize, height: usize) -> ImageTensor {
    ImageTensor {
        dtype,
        planar: true,
        order: ChannelOrder::Rgb,
        width,
        height,
        scale: [1.0 / 255.0; 3],
        bias: [0.0; 3],
    }
}

/// Bytes of a frame that carry pixels.
pub(crate) fn bytes(spec: &ImageSpec) -> usize {
    (0..spec.format.planes())
        .map(|plane| {
            let (rows, row) = spec.format.plane_size(plane, spec.width, spec.height);
            rows * row
        })
        .sum()
}

/// `NV12 512x512`.
pub(crate) fn name(spec: &ImageSpec) -> String {
    let format = format!("{:?}", spec.format).to_uppercase();
    format!("{format} {}x{}", spec.width, spec.height)
}

/// One frame in main memory, its planes one behind the other.
#[derive(Clone)]
pub(crate) struct Frame {
    spec: ImageSpec,
    data: Vec<u8>,
}

impl Frame {
    pub(crate) fn noise(spec: &ImageSpec, seed: u64) -> Self {
        Self {
            spec: *spec,
            data: noise(bytes(spec), seed),
        }
    }

    pub(crate) fn image(&self) -> Image<'_> {
        let mut image = Image::default();
        let mut rest = &self.data[..];
        for (number, plane) in image.planes.iter_mut().enumerate().take(self.spec.format.planes()) {
            let (rows, stride) = self.spec.format.plane_size(number, self.spec.width, self.spec.height);
            let (data, after) = rest.split_at(rows * stride);
            *plane = Plane { data, stride };
            rest = after;
        }
        image
    }

    pub(crate) fn image_mut(&mut self) -> ImageMut<'_> {
        let mut image = ImageMut::default();
        let mut rest = &mut self.data[..];
        for (number, plane) in image.planes.iter_mut().enumerate().take(self.spec.format.planes()) {
            let (rows, stride) = self.spec.format.plane_size(number, self.spec.width, self.spec.height);
            let (data, after) = rest.split_at_mut(rows * stride);
            *plane = PlaneMut { data, stride };
            rest = after;
        }
        image
    }
}

/// Frames on the device.
pub(crate) struct DeviceFrames {
    pub(crate) spec: ImageSpec,
    pub(crate) images: Vec<DeviceImage>,
    _memory: DeviceBuffer,
}

impl DeviceFrames {
    pub(crate) fn noise(stream: &Stream, spec: ImageSpec, count: usize) -> Result<Self> {
        let mut places = Vec::new();
        let mut frame = 0;
        for plane in 0..spec.format.planes() {
            let (rows, row) = spec.format.plane_size(plane, spec.width, spec.height);
            let stride = row.next_multiple_of(ALIGN);
            places.push((frame as u64, stride));
            frame += rows * stride;
        }
        let memory = filled(stream, frame * count)?;
        let images = (0..count as u64).map(|number| {
            let mut image = DeviceImage::default();
            for (plane, (offset, stride)) in image.planes.iter_mut().zip(&places) {
                *plane = DevicePlane {
                    address: memory.address() + number * frame as u64 + offset,
                    stride: *stride,
                };
            }
            image
        });
        Ok(Self {
            spec,
            images: images.collect(),
            _memory: memory,
        })
    }
}

/// A batch of image tensors on the device.
pub(crate) struct Tensors {
    pub(crate) tensor: DeviceTensor,
    _memory: DeviceBuffer,
}

impl Tensors {
    pub(crate) fn new(device: &Arc<Device>, image: ImageTensor, slots: usize) -> Result<Self> {
        let memory = DeviceBuffer::zeroed(device, image.len() * image.dtype.size() * slots)?;
        Ok(Self {
            tensor: DeviceTensor {
                image,
                address: memory.address(),
                slots,
            },
            _memory: memory,
        })
    }
}

/// Noise on the device.
pub(crate) fn filled(stream: &Stream, len: usize) -> Result<DeviceBuffer> {
    let buffer = DeviceBuffer::new(stream.device(), len)?;
    let mut host = Pinned::for_upload(stream.device(), len)?;
    host.as_mut_slice().copy_from_slice(&noise(len, len as u64));
    stream.upload(&host, 0..len, buffer.address())?;
    stream.synchronize()?;
    Ok(buffer)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frame_of_noise_is_whole_and_no_two_are_alike() {
        let spec = spec(PixelFormat::Nv12, 6, 4);
        let frame = Frame::noise(&spec, 1);
        let image = frame.image();
        assert_eq!((image.planes[0].data.len(), image.planes[1].data.len()), (24, 12));
        assert_eq!(bytes(&spec), 36);
        assert_ne!(frame.data, Frame::noise(&spec, 2).data);
        assert_eq!(name(&spec), "NV12 6x4");
    }
}
