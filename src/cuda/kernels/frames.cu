/* Frames to image tensors and back, on the device.
 *
 * What a conversion means is said in src/tensor/convert.rs, with which these agree within 1 of 255; numbers that are
 * only moved and scaled are equal. The structures are those of job.rs beside this, field by field.
 *
 * One source, compiled twice: for the device into frames.ptx beside it, and as plain C for the simulated driver, which
 * is how everything here is tested. So it is C without headers. What the two have not in common stands between the
 * first #ifdef and its #endif; `at` is where an address becomes a pointer.
 *
 * Cost. Each frame's samples are read once and each number written once, when the sizes are equal: a batch of four
 * frames of 512x512 in NV12 is 1.6 MB in and, as f16, 6.3 MB out: 2.6 us at the 3 TB/s of an H100, and as much on the
 * way back. Neighbouring threads read neighbouring samples and write neighbouring numbers, so that a warp's accesses
 * fill whole sectors; a thread makes several pixels to pay for its set-up once. When a frame shrinks, samples are read
 * again for each pixel they weigh in: those come from the caches.
 */

typedef unsigned char u8;
typedef unsigned short u16;
typedef unsigned int u32;
typedef unsigned long long u64;

#ifdef __CUDACC__

#define KERNEL extern "C" __global__ void
#define INLINE static __device__ __forceinline__
/* Read where it is: a copy of the table would be one per thread. */
#define PARAMETER const __grid_constant__

INLINE u8 *at(u64 address, u32 bytes) { return (u8 *)address; }

INLINE int nearest(float value) { return __float2int_rn(value); }

INLINE float from_half(u16 bits) {
    float value;
    asm("cvt.f32.f16 %0, %1;" : "=f"(value) : "h"(bits));
    return value;
}

INLINE u16 to_half(float value) {
    u16 bits;
    asm("cvt.rn.f16.f32 %0, %1;" : "=h"(bits) : "f"(value));
    return bits;
}

INLINE u32 bits_of(float value) { return __float_as_uint(value); }

INLINE void count(u64 counter, u32 more) { atomicAdd((u32 *)counter, more); }

#else

struct index { u32 x, y, z; };
static _Thread_local struct index blockIdx, blockDim, gridDim, threadIdx;

#define KERNEL static void
#define INLINE static inline
#define PARAMETER const

/* The shadow of device memory; an address that nobody allocated is a failure of the launch. */
static u8 *at(u64 address, u32 bytes);

INLINE int nearest(float value) { return (int)__builtin_rintf(value); }

INLINE float from_half(u16 bits) {
    _Float16 half;
    __builtin_memcpy(&half, &bits, sizeof half);
    return (float)half;
}

INLINE u16 to_half(float value) {
    _Float16 half = (_Float16)value;
    u16 bits;
    __builtin_memcpy(&bits, &half, sizeof bits);
    return bits;
}

INLINE u32 bits_of(float value) {
    u32 bits;
    __builtin_memcpy(&bits, &value, sizeof bits);
    return bits;
}

INLINE void count(u64 counter, u32 more) { __atomic_fetch_add((u32 *)at(counter, 4), more, __ATOMIC_RELAXED); }

#endif

/* Frames of one launch: two tables of this many fit into the 4 KB of a launch's parameters. */
#define FRAMES 16
/* Pixels that a thread makes on the way into a tensor. */
#define PIXELS 4

enum format { NV12, P010, I420, RGBX, BGRX, RGB, BGR, RGBP, GRAY8 };
enum dtype { U8, F16, F32 };
enum order { ORDER_RGB, ORDER_BGR, ORDER_GRAY };

struct frame {
    u64 plane[3];
    u32 stride[3];
    u32 unused;
};

struct picture {
    int format, width, height;
    /* Luma and chroma from codes, 0 to 255 and around 0: (code - zero) * gain. */
    float luma_zero, luma_gain, chroma_zero, chroma_gain;
    /* What chroma adds to luma. */
    float red_of_red, green_of_blue, green_of_red, blue_of_blue;
    /* Luma of red, green and blue. */
    float kr, kg, kb;
    /* And back: luma * luma_scale + luma_zero, (blue - luma) * blue_scale + chroma_zero. */
    float luma_scale, blue_scale, red_scale;
    /* The largest code. */
    float top;
};

struct tensor {
    u64 address;
    int dtype, planar, order, channels, width, height;
    /* Into a tensor: byte * scale + bias. Out of it: (number - bias) * scale. */
    float scale[3], bias[3];
};

struct rectangle { int x, y, width, height; };

struct into_job {
    struct tensor tensor;
    struct picture picture;
    struct rectangle source, target;
    struct frame frames[FRAMES];
};

struct from_job {
    struct tensor tensor;
    u64 counter;
    struct picture picture;
    /* The share of the source; 0: the sources are not read. */
    float share;
    u32 unused;
    struct frame frames[FRAMES];
    struct frame sources[FRAMES];
};

struct invert_job {
    u64 from, to, count;
    int dtype;
    u32 unused;
};

struct colour { float c[3]; };

INLINE float load8(u64 address) { return (float)*at(address, 1); }

INLINE float load10(u64 address) { return (float)(*(const u16 *)at(address, 2) >> 6); }

/* The nearest whole number up to `top`. NaN becomes 0: it is not above it. */
INLINE float to_code(float value, float top) {
    value = value > 0.0f ? value : 0.0f;
    value = value < top ? value : top;
    return (float)nearest(value);
}

INLINE u64 row(const struct frame *frame, int plane, int y) {
    return frame->plane[plane] + (u64)y * frame->stride[plane];
}

INLINE float luma_at(const struct picture *p, const struct frame *f, int x, int y) {
    u64 line = row(f, 0, y);
    float code = p->format == P010 ? load10(line + (u64)x * 2) : load8(line + x);
    return (code - p->luma_zero) * p->luma_gain;
}

INLINE int has_luma(int format) { return format <= I420 || format == GRAY8; }

/* Red, green and blue of a pixel, each a whole number up to 255. */
INLINE struct colour colour_at(const struct picture *p, const struct frame *f, int x, int y) {
    struct colour out;
    if (has_luma(p->format)) {
        float luma = luma_at(p, f, x, y), blue, red;
        u64 line;
        if (p->format == GRAY8) {
            out.c[0] = out.c[1] = out.c[2] = to_code(luma, 255.0f);
            return out;
        }
        line = row(f, 1, y / 2);
        if (p->format == NV12) {
            blue = load8(line + x / 2 * 2);
            red = load8(line + x / 2 * 2 + 1);
        } else if (p->format == P010) {
            blue = load10(line + x / 2 * 4);
            red = load10(line + x / 2 * 4 + 2);
        } else {
            blue = load8(line + x / 2);
            red = load8(row(f, 2, y / 2) + x / 2);
        }
        blue = (blue - p->chroma_zero) * p->chroma_gain;
        red = (red - p->chroma_zero) * p->chroma_gain;
        out.c[0] = to_code(luma + red * p->red_of_red, 255.0f);
        out.c[1] = to_code(luma + blue * p->green_of_blue + red * p->green_of_red, 255.0f);
        out.c[2] = to_code(luma + blue * p->blue_of_blue, 255.0f);
    } else if (p->format == RGBP) {
        out.c[0] = load8(row(f, 0, y) + x);
        out.c[1] = load8(row(f, 1, y) + x);
        out.c[2] = load8(row(f, 2, y) + x);
    } else {
        int red_last = p->format == BGRX || p->format == BGR;
        u64 pixel = row(f, 0, y) + (u64)x * (p->format == RGB || p->format == BGR ? 3 : 4);
        float first = load8(pixel), last = load8(pixel + 2);
        out.c[0] = red_last ? last : first;
        out.c[1] = load8(pixel + 1);
        out.c[2] = red_last ? first : last;
    }
    return out;
}

INLINE float luma_of(const struct picture *p, float red, float green, float blue) {
    return p->kr * red + p->kg * green + p->kb * blue;
}

/* The tensor's channels of a pixel of the frame. */
INLINE struct colour channels_at(const struct into_job *job, const struct frame *f, int x, int y) {
    const struct picture *p = &job->picture;
    struct colour out;
    if (job->tensor.order == ORDER_GRAY && has_luma(p->format)) {
        out.c[0] = out.c[1] = out.c[2] = to_code(luma_at(p, f, x, y), 255.0f);
        return out;
    }
    out = colour_at(p, f, x, y);
    if (job->tensor.order == ORDER_GRAY) {
        out.c[0] = to_code(luma_of(p, out.c[0], out.c[1], out.c[2]), 255.0f);
    } else if (job->tensor.order == ORDER_BGR) {
        float red = out.c[0];
        out.c[0] = out.c[2];
        out.c[2] = red;
    }
    return out;
}

/* Samples that a pixel of the target weighs, along one side. A sample's distance from the pixel's centre and the reach
 * of the triangle are whole numbers in units of 1 / (2 * to), so that weights are exact. */
struct reach { int first, last, centre, limit; };

INLINE struct reach reach_of(int from, int to, int at) {
    struct reach reach;
    int end;
    reach.centre = (2 * at + 1) * from;
    reach.limit = 2 * (from > to ? from : to);
    reach.first = reach.centre > reach.limit ? (reach.centre - reach.limit) / (2 * to) : 0;
    end = (reach.centre + reach.limit) / (2 * to) + 1;
    reach.last = end < from ? end : from;
    return reach;
}

INLINE float weight_of(const struct reach *reach, int to, int sample) {
    int distance = (2 * sample + 1) * to - reach->centre;
    int weight = reach->limit - (distance < 0 ? -distance : distance);
    return weight > 0 ? (float)weight : 0.0f;
}

INLINE struct colour resampled(const struct into_job *job, const struct frame *f, int x, int y) {
    struct reach columns = reach_of(job->source.width, job->target.width, x);
    struct reach rows = reach_of(job->source.height, job->target.height, y);
    struct colour sum = {{0.0f, 0.0f, 0.0f}};
    float rows_weight = 0.0f;
    int i, j;
    for (j = rows.first; j < rows.last; j++) {
        float weight = weight_of(&rows, job->target.height, j), line_weight = 0.0f;
        struct colour line = {{0.0f, 0.0f, 0.0f}};
        for (i = columns.first; i < columns.last; i++) {
            float share = weight_of(&columns, job->target.width, i);
            struct colour sample = channels_at(job, f, job->source.x + i, job->source.y + j);
            line.c[0] += share * sample.c[0];
            line.c[1] += share * sample.c[1];
            line.c[2] += share * sample.c[2];
            line_weight += share;
        }
        weight /= line_weight;
        sum.c[0] += weight * line.c[0];
        sum.c[1] += weight * line.c[1];
        sum.c[2] += weight * line.c[2];
        rows_weight += weight * line_weight;
    }
    sum.c[0] = to_code(sum.c[0] / rows_weight, 255.0f);
    sum.c[1] = to_code(sum.c[1] / rows_weight, 255.0f);
    sum.c[2] = to_code(sum.c[2] / rows_weight, 255.0f);
    return sum;
}

INLINE u64 element(const struct tensor *t, u32 image, int channel, int x, int y) {
    u64 plane = (u64)t->width * (u64)t->height;
    u64 pixel = (u64)y * (u64)t->width + (u64)x;
    u64 first = plane * (u64)t->channels * image;
    return first + (t->planar ? plane * (u64)channel + pixel : pixel * (u64)t->channels + (u64)channel);
}

INLINE void put_element(u64 address, int dtype, u64 index, float value) {
    if (dtype == F16) {
        *(u16 *)at(address + index * 2, 2) = to_half(value);
    } else if (dtype == F32) {
        *(float *)at(address + index * 4, 4) = value;
    } else {
        *at(address + index, 1) = (u8)to_code(value, 255.0f);
    }
}

INLINE float get_element(u64 address, int dtype, u64 index) {
    if (dtype == F16) {
        return from_half(*(const u16 *)at(address + index * 2, 2));
    }
    if (dtype == F32) {
        return *(const float *)at(address + index * 4, 4);
    }
    return load8(address + index);
}

/* A batch of frames into one tensor, frame z into image z. A thread makes pixels that are a block's width apart. */
KERNEL frames_into(PARAMETER struct into_job job) {
    const struct tensor *t = &job.tensor;
    u32 image = blockIdx.z;
    const struct frame *f = &job.frames[image];
    int same = job.source.width == job.target.width && job.source.height == job.target.height;
    int y = (int)(blockIdx.y * blockDim.y + threadIdx.y);
    int first = (int)(blockIdx.x * blockDim.x * PIXELS + threadIdx.x);
    int i, channel;
    if (y >= t->height) {
        return;
    }
    for (i = 0; i < PIXELS; i++) {
        int x = first + i * (int)blockDim.x;
        int inner_x = x - job.target.x, inner_y = y - job.target.y;
        struct colour bytes = {{0.0f, 0.0f, 0.0f}};
        if (x >= t->width) {
            return;
        }
        if (inner_x >= 0 && inner_y >= 0 && inner_x < job.target.width && inner_y < job.target.height) {
            bytes = same ? channels_at(&job, f, job.source.x + inner_x, job.source.y + inner_y)
                         : resampled(&job, f, inner_x, inner_y);
        }
        for (channel = 0; channel < 3; channel++) {
            if (channel < t->channels) {
                float value = bytes.c[channel] * t->scale[channel] + t->bias[channel];
                put_element(t->address, t->dtype, element(t, image, channel, x, y), value);
            }
        }
    }
}

/* What is written into a sample: the code, or its mix with the source's. */
INLINE float mixed(const struct from_job *job, float code, u64 source) {
    float other;
    if (job->share == 0.0f) {
        return code;
    }
    other = job->picture.format == P010 ? load10(source) : load8(source);
    return to_code(code * (1.0f - job->share) + other * job->share, job->picture.top);
}

INLINE void put_code(const struct from_job *job, u64 line, u64 source, u64 offset, float code) {
    code = mixed(job, code, source + offset);
    if (job->picture.format == P010) {
        *(u16 *)at(line + offset, 2) = (u16)((u32)code << 6);
    } else {
        *at(line + offset, 1) = (u8)code;
    }
}

/* Red, green and blue of a pixel of the tensor, each a whole number up to 255. */
INLINE struct colour tensor_colour(const struct tensor *t, u32 image, int x, int y, u32 *non_finite) {
    struct colour out = {{0.0f, 0.0f, 0.0f}};
    int channel;
    for (channel = 0; channel < 3; channel++) {
        if (channel < t->channels) {
            float value = get_element(t->address, t->dtype, element(t, image, channel, x, y));
            *non_finite += (bits_of(value) & 0x7f800000u) == 0x7f800000u;
            out.c[channel] = to_code((value - t->bias[channel]) * t->scale[channel], 255.0f);
        }
    }
    if (t->order == ORDER_GRAY) {
        out.c[1] = out.c[2] = out.c[0];
    } else if (t->order == ORDER_BGR) {
        float red = out.c[2];
        out.c[2] = out.c[0];
        out.c[0] = red;
    }
    return out;
}

INLINE void put_colour(const struct from_job *job, const struct frame *f, const struct frame *s, struct colour colour,
                       int x, int y) {
    const struct picture *p = &job->picture;
    u64 line = row(f, 0, y), source = row(s, 0, y);
    if (has_luma(p->format)) {
        float luma = luma_of(p, colour.c[0], colour.c[1], colour.c[2]);
        float code = to_code(luma * p->luma_scale + p->luma_zero, p->top);
        put_code(job, line, source, (u64)x * (p->format == P010 ? 2 : 1), code);
    } else if (p->format == RGBP) {
        put_code(job, line, source, x, colour.c[0]);
        put_code(job, row(f, 1, y), row(s, 1, y), x, colour.c[1]);
        put_code(job, row(f, 2, y), row(s, 2, y), x, colour.c[2]);
    } else {
        int red_last = p->format == BGRX || p->format == BGR;
        int wide = p->format == RGBX || p->format == BGRX;
        u64 pixel = (u64)x * (wide ? 4 : 3);
        float first = red_last ? colour.c[2] : colour.c[0], last = red_last ? colour.c[0] : colour.c[2];
        if (wide && ((line | pixel) & 3) == 0) {
            u32 word = (u32)mixed(job, first, source + pixel);
            word |= (u32)mixed(job, colour.c[1], source + pixel + 1) << 8;
            word |= (u32)mixed(job, last, source + pixel + 2) << 16;
            *(u32 *)at(line + pixel, 4) = word | 0xff000000u;
            return;
        }
        put_code(job, line, source, pixel, first);
        put_code(job, line, source, pixel + 1, colour.c[1]);
        put_code(job, line, source, pixel + 2, last);
        if (wide) {
            *at(line + pixel + 3, 1) = 255;
        }
    }
}

INLINE void put_chroma(const struct from_job *job, const struct frame *f, const struct frame *s, struct colour mean,
                       int x, int y) {
    const struct picture *p = &job->picture;
    float luma = luma_of(p, mean.c[0], mean.c[1], mean.c[2]);
    float blue = to_code((mean.c[2] - luma) * p->blue_scale + p->chroma_zero, p->top);
    float red = to_code((mean.c[0] - luma) * p->red_scale + p->chroma_zero, p->top);
    u64 line = row(f, 1, y), source = row(s, 1, y);
    if (p->format == I420) {
        put_code(job, line, source, x, blue);
        put_code(job, row(f, 2, y), row(s, 2, y), x, red);
    } else {
        int sample = p->format == P010 ? 2 : 1;
        put_code(job, line, source, (u64)x * 2 * sample, blue);
        put_code(job, line, source, ((u64)x * 2 + 1) * sample, red);
    }
}

/* A batch of images into frames, image z into frame z. A thread makes a block of 2x2 pixels, which share chroma. */
KERNEL frames_from(PARAMETER struct from_job job) {
    const struct picture *p = &job.picture;
    u32 image = blockIdx.z;
    const struct frame *f = &job.frames[image], *s = &job.sources[image];
    int x = (int)(blockIdx.x * blockDim.x + threadIdx.x);
    int y = (int)(blockIdx.y * blockDim.y + threadIdx.y);
    struct colour sum = {{0.0f, 0.0f, 0.0f}};
    float pixels = 0.0f;
    u32 non_finite = 0;
    int i;
    if (x * 2 >= p->width || y * 2 >= p->height) {
        return;
    }
    for (i = 0; i < 4; i++) {
        int column = x * 2 + i % 2, line = y * 2 + i / 2;
        if (column < p->width && line < p->height) {
            struct colour colour = tensor_colour(&job.tensor, image, column, line, &non_finite);
            put_colour(&job, f, s, colour, column, line);
            sum.c[0] += colour.c[0];
            sum.c[1] += colour.c[1];
            sum.c[2] += colour.c[2];
            pixels += 1.0f;
        }
    }
    if (p->format <= I420) {
        sum.c[0] /= pixels;
        sum.c[1] /= pixels;
        sum.c[2] /= pixels;
        put_chroma(&job, f, s, sum, x, y);
    }
    if (non_finite != 0) {
        count(job.counter, non_finite);
    }
}

/* 255 - x of bytes, 1 - x of the others: a model whose answer is known. */
KERNEL invert(PARAMETER struct invert_job job) {
    u64 index = (u64)blockIdx.x * blockDim.x + threadIdx.x;
    if (index < job.count) {
        float whole = job.dtype == U8 ? 255.0f : 1.0f;
        put_element(job.to, job.dtype, index, whole - get_element(job.from, job.dtype, index));
    }
}
