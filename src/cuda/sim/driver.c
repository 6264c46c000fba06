/* A CUDA driver for machines without a GPU, for tests: libcuda.so.1 with one device, in main memory.
 *
 * What a program could get wrong shows here as it would on a device, or sooner:
 *  - A stream is a thread with a queue: what is queued is done later, in the order of the stream and no other.
 *  - Device memory cannot be touched by the program. An address lies in a mapping without any rights; kernels and
 *    copies use its shadow, which is that mapping at another place.
 *  - A kernel that touches what is not allocated, or not in its own context, or not aligned, fails like on a device:
 *    the context is of no use from then on. Fresh memory holds rubbish.
 *  - Freeing waits for what is queued, and copies from or to memory that is not pinned wait until they are done.
 *
 * Kernels are those of kernels/frames.cu. The functions sim_* count, stall and fail; the rest has the driver's names.
 * Graphics, textures and external memory are refused as not supported.
 */
#include "machine.h"

#define API __attribute__((visibility("default")))

/* ---- start, devices, contexts ---- */

API int cuInit(unsigned flags) {
    (void)flags;
    pthread_mutex_lock(&lock);
    if (!started) {
        arena = mmap(NULL, 2 * ARENA, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
        if (arena == MAP_FAILED || mprotect(arena + ARENA, ARENA, PROT_READ | PROT_WRITE)) {
            return leave(OUT_OF_MEMORY);
        }
        started = 1;
    }
    return leave(OK);
}

API int cuDriverGetVersion(int *version) { *version = 12020; return OK; }
API int cuDeviceGetCount(int *count) { *count = 1; return started ? OK : NOT_INITIALIZED; }
API int cuDeviceGet(int *device, int ordinal) { *device = 0; return ordinal ? INVALID_DEVICE : OK; }
API int cuDeviceTotalMem_v2(size_t *bytes, int device) { *bytes = ARENA; return device ? INVALID_DEVICE : OK; }
API int cuDeviceCanAccessPeer(int *can, int a, int b) { (void)a, (void)b; *can = 0; return OK; }

API int cuDeviceGetName(char *name, int len, int device) {
    snprintf(name, (size_t)len, "Simulated");
    return device ? INVALID_DEVICE : OK;
}

API int cuDeviceGetUuid(void *uuid, int device) { memset(uuid, 0x11, 16); return device ? INVALID_DEVICE : OK; }
API int cuDeviceGetUuid_v2(void *uuid, int device) { return cuDeviceGetUuid(uuid, device); }

API int cuDeviceGetAttribute(int *value, int attribute, int device) {
    switch (attribute) {
    case 1: *value = 1024; break;            /* threads of a block */
    case 10: *value = 32; break;             /* threads of a warp */
    case 11: *value = 0x7fffffff; break;     /* pitch */
    case 14: case 51: *value = 512; break;   /* alignment of textures and of their rows */
    case 16: *value = 132; break;            /* multiprocessors */
    case 41: *value = 1; break;              /* one address space */
    case 75: *value = 9; break;              /* compute capability */
    default: *value = 0; break;
    }
    return device ? INVALID_DEVICE : OK;
}

static struct context *new_context(int is_primary) {
    struct context *context = calloc(1, sizeof *context);
    context->primary = is_primary;
    context->next = contexts;
    contexts = context;
    counters.live_contexts += !is_primary;
    return context;
}

API int cuDevicePrimaryCtxRetain(void **context, int device) {
    pthread_mutex_lock(&lock);
    if (!started || device) {
        return leave(started ? INVALID_DEVICE : NOT_INITIALIZED);
    }
    primary = primary ? primary : new_context(1);
    counters.retained++;
    *context = primary;
    return leave(OK);
}

API int cuDevicePrimaryCtxRelease_v2(int device) {
    pthread_mutex_lock(&lock);
    if (device || !counters.retained) {
        return leave(INVALID_CONTEXT);
    }
    counters.retained--;
    return leave(OK);
}

API int cuDevicePrimaryCtxGetState(int device, unsigned *flags, int *active) {
    *flags = 0;
    *active = counters.retained > 0;
    return device ? INVALID_DEVICE : OK;
}

API int cuDevicePrimaryCtxSetFlags_v2(int device, unsigned flags) { (void)flags; return device ? INVALID_DEVICE : OK; }

API int cuCtxPushCurrent_v2(void *context) {
    if (depth == 16) {
        return INVALID_VALUE;
    }
    stack[depth++] = context;
    return OK;
}

API int cuCtxPopCurrent_v2(void **context) {
    if (!depth) {
        return INVALID_CONTEXT;
    }
    depth--;
    if (context) {
        *context = stack[depth];
    }
    return OK;
}

API int cuCtxGetCurrent(void **context) { *context = current(); return OK; }

API int cuCtxSetCurrent(void *context) {
    depth -= depth > 0;
    return context ? cuCtxPushCurrent_v2(context) : OK;
}

API int cuCtxCreate_v2(void **context, unsigned flags, int device) {
    (void)flags;
    pthread_mutex_lock(&lock);
    if (!started || device) {
        return leave(started ? INVALID_DEVICE : NOT_INITIALIZED);
    }
    *context = new_context(0);
    cuCtxPushCurrent_v2(*context);
    return leave(OK);
}

API int cuCtxDestroy_v2(void *context) {
    struct context **at;
    pthread_mutex_lock(&lock);
    for (at = &contexts; *at && *at != context; at = &(*at)->next) {
    }
    if (!*at || (*at)->primary) {
        return leave(INVALID_CONTEXT);
    }
    drain_context(context);
    *at = (*at)->next;
    counters.live_contexts--;
    if (current() == context) {
        depth--;
    }
    return leave(OK);
}

API int cuCtxGetDevice(int *device) { *device = 0; return current() ? OK : INVALID_CONTEXT; }
API int cuCtxGetFlags(unsigned *flags) { *flags = 0; return OK; }
API int cuCtxGetApiVersion(void *context, unsigned *version) { (void)context; *version = 12020; return OK; }
API int cuCtxEnablePeerAccess(void *context, unsigned flags) { (void)context, (void)flags; return INVALID_DEVICE; }
API int cuCtxDisablePeerAccess(void *context) { (void)context; return INVALID_DEVICE; }

API int cuCtxSynchronize(void) {
    int failed = enter();
    if (failed) {
        return leave(failed);
    }
    counters.context_waits++;
    drain_context(current());
    return leave(current()->failed);
}

/* ---- memory ---- */

API int cuMemGetInfo_v2(size_t *available, size_t *total) {
    int failed = enter();
    *available = ARENA - counters.live_bytes;
    *total = ARENA;
    return leave(failed);
}

static int runs_out(long *after) {
    if (*after < 0) {
        return 0;
    }
    return *after == 0 || (--*after, 0);
}

API int cuMemAlloc_v2(u64 *address, size_t bytes) {
    struct allocation **at = &allocations, *new;
    u64 free_from = (u64)arena;
    int failed = enter();
    if (failed || !bytes) {
        return leave(failed ? failed : INVALID_VALUE);
    }
    for (; *at && (*at)->address - free_from < bytes + GUARD; at = &(*at)->next) {
        free_from = ((*at)->address + (*at)->bytes + 2 * GUARD - 1) / GUARD * GUARD;
    }
    if (runs_out(&fail_allocations) || free_from + bytes + GUARD > (u64)arena + ARENA) {
        return leave(OUT_OF_MEMORY);
    }
    new = malloc(sizeof *new);
    *new = (struct allocation){*at, free_from, bytes, current()};
    *at = new;
    counters.allocations++;
    counters.live_allocations++;
    counters.live_bytes += bytes;
    memset(shadow(free_from), FRESH, bytes);
    *address = free_from;
    return leave(OK);
}

API int cuMemAllocPitch_v2(u64 *address, size_t *pitch, size_t width, size_t height, unsigned element) {
    (void)element;
    *pitch = (width + 511) / 512 * 512;
    return cuMemAlloc_v2(address, *pitch * height);
}

static int take(struct allocation **list, u64 address, struct allocation *out) {
    for (; *list; list = &(*list)->next) {
        if ((*list)->address == address) {
            struct allocation *found = *list;
            *out = *found;
            *list = found->next;
            free(found);
            return 1;
        }
    }
    return 0;
}

API int cuMemFree_v2(u64 address) {
    struct allocation freed;
    int failed = enter();
    if (failed == NOT_INITIALIZED || failed == INVALID_CONTEXT) {
        return leave(failed);
    }
    drain_context(NULL);
    if (!take(&allocations, address, &freed)) {
        return leave(INVALID_VALUE);
    }
    memset(shadow(address), 0xdd, freed.bytes);
    counters.live_allocations--;
    counters.live_bytes -= freed.bytes;
    return leave(failed);
}

API int cuMemHostAlloc(void **data, size_t bytes, unsigned flags) {
    struct allocation *new;
    int failed = enter();
    (void)flags;
    if (failed || !bytes) {
        return leave(failed ? failed : INVALID_VALUE);
    }
    if (runs_out(&fail_allocations) || posix_memalign(data, 4096, bytes)) {
        return leave(OUT_OF_MEMORY);
    }
    memset(*data, FRESH, bytes);
    new = malloc(sizeof *new);
    *new = (struct allocation){pinned, (u64)*data, bytes, current()};
    pinned = new;
    counters.pinned_allocations++;
    counters.live_pinned++;
    return leave(OK);
}

API int cuMemAllocHost_v2(void **data, size_t bytes) { return cuMemHostAlloc(data, bytes, 0); }

API int cuMemFreeHost(void *data) {
    struct allocation freed;
    int failed = enter();
    if (failed == NOT_INITIALIZED || failed == INVALID_CONTEXT) {
        return leave(failed);
    }
    drain_context(NULL);
    if (!take(&pinned, (u64)data, &freed)) {
        return leave(INVALID_VALUE);
    }
    memset(data, 0xdd, freed.bytes);
    free(data);
    counters.live_pinned--;
    return leave(failed);
}

static int is_pinned(u64 address, size_t bytes) {
    struct allocation *a;
    for (a = pinned; a; a = a->next) {
        if (address >= a->address && address + bytes <= a->address + a->bytes) {
            return 1;
        }
    }
    return 0;
}

API int cuPointerGetAttribute(void *data, int attribute, u64 address) {
    struct allocation *a;
    int failed = enter();
    if (failed) {
        return leave(failed);
    }
    a = allocation_of(address, 1);
    if (!a && attribute == 2 && is_pinned(address, 1)) {
        *(int *)data = 1;
        return leave(OK);
    }
    if (!a) {
        return leave(INVALID_VALUE);
    }
    switch (attribute) {
    case 1: *(void **)data = a->context; return leave(OK);
    case 2: *(int *)data = 2; return leave(OK);
    case 3: *(u64 *)data = address; return leave(OK);
    case 9: *(int *)data = 0; return leave(OK);
    default: return leave(NOT_SUPPORTED);
    }
}

static int copy(struct side from, struct side to, size_t width, size_t height, void *handle, int wait) {
    const struct side *host = from.is_device ? &to : &from;
    struct stream *stream;
    int failed = enter();
    if (failed) {
        return leave(failed);
    }
    stream = stream_of(handle);
    if (!stream) {
        return leave(INVALID_HANDLE);
    }
    if (!width || !height) {
        return leave(OK);
    }
    if (height > 1 && (from.pitch < width || to.pitch < width)) {
        return leave(INVALID_VALUE);
    }
    if (from.is_device && to.is_device) {
        counters.dtod_calls++;
        counters.dtod_bytes += width * height;
    } else {
        counters.htod_calls += to.is_device;
        counters.htod_bytes += to.is_device ? width * height : 0;
        counters.dtoh_calls += from.is_device;
        counters.dtoh_bytes += from.is_device ? width * height : 0;
        if (!wait && !is_pinned(host->address, host->pitch * (height - 1) + width)) {
            counters.pageable_calls++;
            wait = 1;
        }
    }
    enqueue(stream, (struct op){.kind = COPY, .from = from, .to = to, .width = width, .height = height});
    if (wait) {
        drain(stream);
    }
    return leave(stream->context->failed);
}

static struct side device(u64 address) { return (struct side){1, address, 0}; }
static struct side host(const void *data) { return (struct side){0, (u64)data, 0}; }

API int cuMemcpyHtoDAsync_v2(u64 to, const void *from, size_t bytes, void *stream) {
    return copy(host(from), device(to), bytes, 1, stream, 0);
}
API int cuMemcpyDtoHAsync_v2(void *to, u64 from, size_t bytes, void *stream) {
    return copy(device(from), host(to), bytes, 1, stream, 0);
}
API int cuMemcpyDtoDAsync_v2(u64 to, u64 from, size_t bytes, void *stream) {
    return copy(device(from), device(to), bytes, 1, stream, 0);
}
API int cuMemcpyHtoD_v2(u64 to, const void *from, size_t bytes) {
    return copy(host(from), device(to), bytes, 1, NULL, 1);
}
API int cuMemcpyDtoH_v2(void *to, u64 from, size_t bytes) { return copy(device(from), host(to), bytes, 1, NULL, 1); }
API int cuMemcpyDtoD_v2(u64 to, u64 from, size_t bytes) { return copy(device(from), device(to), bytes, 1, NULL, 1); }
API int cuMemcpyPeerAsync(u64 to, void *to_context, u64 from, void *from_context, size_t bytes, void *stream) {
    (void)to_context, (void)from_context;
    return copy(device(from), device(to), bytes, 1, stream, 0);
}

static struct side side_of(u64 address) {
    return (struct side){address >= (u64)arena && address < (u64)arena + ARENA, address, 0};
}

API int cuMemcpyAsync(u64 to, u64 from, size_t bytes, void *stream) {
    return copy(side_of(from), side_of(to), bytes, 1, stream, 0);
}
API int cuMemcpy(u64 to, u64 from, size_t bytes) { return copy(side_of(from), side_of(to), bytes, 1, NULL, 1); }

struct end { size_t x, y; int type; const void *host; u64 device; void *array; size_t pitch; };
struct copy_2d { struct end from, to; size_t width, height; };

static int end_of(const struct end *end, size_t width, struct side *side) {
    size_t pitch = end->pitch ? end->pitch : width;
    switch (end->type) {
    case 1: *side = host(end->host); break;
    case 2: *side = device(end->device); break;
    case 4: *side = side_of(end->device); break;
    default: return NOT_SUPPORTED;
    }
    side->address += end->y * pitch + end->x;
    side->pitch = pitch;
    return OK;
}

static int copy_2d(const struct copy_2d *what, void *stream, int wait) {
    struct side from, to;
    int failed = end_of(&what->from, what->width, &from);
    failed = failed ? failed : end_of(&what->to, what->width, &to);
    return failed ? failed : copy(from, to, what->width, what->height, stream, wait);
}

API int cuMemcpy2DAsync_v2(const struct copy_2d *what, void *stream) { return copy_2d(what, stream, 0); }
API int cuMemcpy2D_v2(const struct copy_2d *what) { return copy_2d(what, NULL, 1); }
API int cuMemcpy2DUnaligned_v2(const struct copy_2d *what) { return copy_2d(what, NULL, 1); }

struct peer_end { size_t x, y, z, lod; int type; const void *host; u64 device; void *array; struct context *context;
                  size_t pitch, height; };
struct copy_peer { struct peer_end from, to; size_t width, height, depth; };

static int belongs(const struct peer_end *end) {
    struct allocation *a;
    pthread_mutex_lock(&lock);
    a = allocation_of(end->device, 1);
    pthread_mutex_unlock(&lock);
    return a && a->context == end->context;
}

/* One layer of rows: what is asked for here. */
API int cuMemcpy3DPeerAsync(const struct copy_peer *what, void *stream) {
    struct side from = device(what->from.device), to = device(what->to.device);
    if (what->from.type != 2 || what->to.type != 2 || what->depth != 1 || what->from.z || what->to.z) {
        return NOT_SUPPORTED;
    }
    if (!belongs(&what->from) || !belongs(&what->to)) {
        return INVALID_VALUE;
    }
    from.pitch = what->from.pitch;
    to.pitch = what->to.pitch;
    from.address += what->from.y * from.pitch + what->from.x;
    to.address += what->to.y * to.pitch + what->to.x;
    return copy(from, to, what->width, what->height, stream, 0);
}

API int cuMemsetD8Async(u64 address, u8 byte, size_t bytes, void *handle) {
    struct stream *stream;
    int failed = enter();
    if (failed) {
        return leave(failed);
    }
    stream = stream_of(handle);
    if (!stream) {
        return leave(INVALID_HANDLE);
    }
    counters.fills++;
    enqueue(stream, (struct op){.kind = FILL, .to = device(address), .width = bytes, .byte = byte});
    return leave(OK);
}
API int cuMemsetD8_v2(u64 address, u8 byte, size_t bytes) { return cuMemsetD8Async(address, byte, bytes, NULL); }

/* ---- streams and events ---- */

API int cuStreamCreate(void **handle, unsigned flags) {
    int failed = enter();
    if (failed) {
        return leave(failed);
    }
    *handle = open_stream(current(), !(flags & 1));
    counters.live_streams++;
    return leave(OK);
}
API int cuStreamCreateWithPriority(void **handle, unsigned flags, int priority) {
    (void)priority;
    return cuStreamCreate(handle, flags);
}

API int cuStreamDestroy_v2(void *handle) {
    struct stream *stream;
    int failed = enter();
    if (failed == NOT_INITIALIZED || failed == INVALID_CONTEXT) {
        return leave(failed);
    }
    stream = (u64)handle > 2 ? stream_of(handle) : NULL;
    if (!stream) {
        return leave(INVALID_HANDLE);
    }
    stream->closed = 1;
    counters.live_streams--;
    pthread_cond_broadcast(&changed);
    return leave(failed);
}
API int cuStreamDestroy(void *handle) { return cuStreamDestroy_v2(handle); }

API int cuStreamSynchronize(void *handle) {
    struct stream *stream;
    int failed = enter();
    if (failed) {
        return leave(failed);
    }
    stream = stream_of(handle);
    if (!stream) {
        return leave(INVALID_HANDLE);
    }
    counters.stream_waits++;
    drain(stream);
    return leave(stream->context->failed);
}

API int cuStreamQuery(void *handle) {
    struct stream *stream;
    int failed = enter();
    if (failed) {
        return leave(failed);
    }
    stream = stream_of(handle);
    return leave(!stream ? INVALID_HANDLE : stream->done < stream->queued ? NOT_READY : OK);
}

API int cuStreamGetCtx(void *handle, void **context) {
    struct stream *stream;
    int failed = enter();
    if (failed) {
        return leave(failed);
    }
    stream = stream_of(handle);
    *context = stream ? stream->context : NULL;
    return leave(stream ? OK : INVALID_HANDLE);
}

API int cuLaunchHostFunc(void *handle, void (*call)(void *), void *user) {
    struct stream *stream;
    int failed = enter();
    if (failed) {
        return leave(failed);
    }
    stream = stream_of(handle);
    if (!stream) {
        return leave(INVALID_HANDLE);
    }
    enqueue(stream, (struct op){.kind = CALL, .call = call, .user = user});
    return leave(OK);
}

API int cuEventCreate(void **handle, unsigned flags) {
    struct event *event;
    int failed = enter();
    if (failed) {
        return leave(failed);
    }
    event = calloc(1, sizeof *event);
    event->references = 1;
    event->has_timing = !(flags & 2);
    counters.live_events++;
    *handle = event;
    return leave(OK);
}

API int cuEventDestroy_v2(void *handle) {
    int failed = enter();
    if (failed == NOT_INITIALIZED || failed == INVALID_CONTEXT) {
        return leave(failed);
    }
    counters.live_events--;
    release(handle);
    return leave(failed);
}
API int cuEventDestroy(void *handle) { return cuEventDestroy_v2(handle); }

API int cuEventRecord(void *handle, void *on) {
    struct event *event = handle;
    struct stream *stream;
    int failed = enter();
    if (failed) {
        return leave(failed);
    }
    stream = stream_of(on);
    if (!stream) {
        return leave(INVALID_HANDLE);
    }
    enqueue(stream, (struct op){.kind = RECORD, .event = event, .version = ++event->recorded});
    return leave(OK);
}

API int cuStreamWaitEvent(void *on, void *handle, unsigned flags) {
    struct event *event = handle;
    struct stream *stream;
    int failed = enter();
    (void)flags;
    if (failed) {
        return leave(failed);
    }
    stream = stream_of(on);
    if (!stream) {
        return leave(INVALID_HANDLE);
    }
    enqueue(stream, (struct op){.kind = WAIT_EVENT, .event = event, .version = event->recorded});
    return leave(OK);
}

API int cuEventSynchronize(void *handle) {
    struct event *event = handle;
    u64 until;
    int failed = enter();
    if (failed) {
        return leave(failed);
    }
    counters.event_waits++;
    until = event->recorded;
    while (event->reached < until) {
        pthread_cond_wait(&changed, &lock);
    }
    return leave(current()->failed);
}

API int cuEventQuery(void *handle) {
    struct event *event = handle;
    int failed = enter();
    return leave(failed ? failed : event->reached < event->recorded ? NOT_READY : OK);
}

API int cuEventElapsedTime(float *milliseconds, void *from, void *to) {
    struct event *a = from, *b = to;
    int failed = enter();
    if (failed) {
        return leave(failed);
    }
    if (!a->has_timing || !b->has_timing || !a->recorded || !b->recorded) {
        return leave(INVALID_HANDLE);
    }
    if (a->reached < a->recorded || b->reached < b->recorded) {
        return leave(NOT_READY);
    }
    *milliseconds = (float)((double)(b->when.tv_sec - a->when.tv_sec) * 1e3 +
                            (double)(b->when.tv_nsec - a->when.tv_nsec) / 1e6);
    return leave(OK);
}
API int cuEventElapsedTime_v2(float *milliseconds, void *a, void *b) { return cuEventElapsedTime(milliseconds, a, b); }

/* ---- kernels, as they are asked for ---- */

API int cuModuleLoadData(void **module, const void *image) {
    int failed = enter();
    if (failed) {
        return leave(failed);
    }
    *module = (void *)image;
    counters.live_modules++;
    return leave(OK);
}

API int cuModuleUnload(void *module) {
    int failed = enter();
    (void)module;
    if (failed == NOT_INITIALIZED || failed == INVALID_CONTEXT) {
        return leave(failed);
    }
    counters.live_modules--;
    return leave(failed);
}

API int cuModuleGetFunction(void **function, void *module, const char *name) {
    (void)module;
    *function = (void *)function_named(name);
    return *function ? OK : NOT_FOUND;
}

API int cuLaunchKernel(void *handle, u32 grid_x, u32 grid_y, u32 grid_z, u32 block_x, u32 block_y, u32 block_z,
                       u32 shared, void *on, void **parameters, void **extra) {
    const struct function *function = handle;
    struct stream *stream;
    void *job;
    int fails, failed = enter();
    (void)shared, (void)extra;
    if (failed) {
        return leave(failed);
    }
    stream = stream_of(on);
    if (!stream || stream->context != current()) {
        return leave(INVALID_HANDLE);
    }
    if (!grid_x || !grid_y || !grid_z || grid_y > 65535 || grid_z > 65535 || !block_x || !block_y || !block_z ||
        block_x * block_y * block_z > 1024) {
        return leave(INVALID_VALUE);
    }
    if (runs_out(&refuse_launches)) {
        return leave(LAUNCH_FAILED);
    }
    fails = runs_out(&fail_launches);
    counters.launches++;
    job = malloc(function->bytes);
    memcpy(job, parameters[0], function->bytes);
    enqueue(stream, (struct op){.kind = LAUNCH, .function = function, .job = job, .fails = fails,
                                .grid = {grid_x, grid_y, grid_z}, .block = {block_x, block_y, block_z}});
    return leave(OK);
}

/* ---- words ---- */

API int cuGetErrorName(int code, const char **name) {
    switch (code) {
#define NAME(n) case n: *name = "CUDA_ERROR_" #n; return OK;
    NAME(INVALID_VALUE) NAME(OUT_OF_MEMORY) NAME(NOT_INITIALIZED) NAME(INVALID_DEVICE) NAME(INVALID_CONTEXT)
    NAME(INVALID_HANDLE) NAME(NOT_FOUND) NAME(NOT_READY) NAME(ILLEGAL_ADDRESS) NAME(MISALIGNED_ADDRESS)
    NAME(LAUNCH_FAILED) NAME(NOT_SUPPORTED)
    case OK: *name = "CUDA_SUCCESS"; return OK;
    default: *name = NULL; return INVALID_VALUE;
    }
}

API int cuGetErrorString(int code, const char **text) { return cuGetErrorName(code, text); }

/* ---- what is not simulated ---- */

#define NONE(name) API int name(void) { return NOT_SUPPORTED; }
NONE(cuGraphicsMapResources) NONE(cuGraphicsUnmapResources) NONE(cuGraphicsUnregisterResource)
NONE(cuGraphicsGLRegisterImage) NONE(cuGraphicsGLRegisterBuffer) NONE(cuGLGetDevices_v2)
NONE(cuGraphicsResourceSetMapFlags_v2) NONE(cuGraphicsSubResourceGetMappedArray)
NONE(cuGraphicsResourceGetMappedPointer_v2) NONE(cuTexObjectCreate) NONE(cuTexObjectDestroy)
NONE(cuImportExternalMemory) NONE(cuDestroyExternalMemory) NONE(cuExternalMemoryGetMappedBuffer)
NONE(cuImportExternalSemaphore) NONE(cuDestroyExternalSemaphore) NONE(cuIpcGetMemHandle)
NONE(cuIpcOpenMemHandle_v2) NONE(cuIpcCloseMemHandle) NONE(cuIpcGetEventHandle) NONE(cuIpcOpenEventHandle)
NONE(cuMemHostRegister_v2) NONE(cuMemHostUnregister)

/* ---- for tests ---- */

API void sim_counters(struct counters *out) {
    pthread_mutex_lock(&lock);
    *out = counters;
    pthread_mutex_unlock(&lock);
}

/* Work goes on, nothing fails, contexts are good again, and what was counted is 0; what there is stays. */
API void sim_reset(void) {
    struct context *context;
    struct stream *stream;
    struct counters *c = &counters;
    pthread_mutex_lock(&lock);
    all_stalled = 0;
    for (stream = streams; stream; stream = stream->next) {
        stream->stalled = 0;
    }
    pthread_cond_broadcast(&changed);
    drain_context(NULL);
    for (context = contexts; context; context = context->next) {
        context->failed = OK;
    }
    fail_launches = refuse_launches = fail_allocations = -1;
    memset(c, 0, (size_t)((char *)&c->live_allocations - (char *)c));
    pthread_mutex_unlock(&lock);
}

/* A stream that is stalled does nothing more, until it goes on; NULL: all of them. */
API void sim_stall(void *handle, int stalls) {
    struct stream *stream;
    pthread_mutex_lock(&lock);
    for (stream = streams; stream; stream = stream->next) {
        stream->stalled = stream == handle ? stalls : stream->stalled;
    }
    all_stalled = handle ? all_stalled : stalls;
    pthread_cond_broadcast(&changed);
    pthread_mutex_unlock(&lock);
}

/* After so many more, launches fail when they are run, launches are refused, allocations find no memory; -1: never. */
API void sim_fail_after(long launches, long refused, long allocated) {
    pthread_mutex_lock(&lock);
    fail_launches = launches;
    refuse_launches = refused;
    fail_allocations = allocated;
    pthread_mutex_unlock(&lock);
}

/* Bytes of a kernel's parameters; 0: there is no such kernel. */
/* How far the shadow of device memory is from its addresses. */
API u64 sim_shadow(void) { return ARENA; }

API size_t sim_parameters(const char *name) {
    const struct function *function = function_named(name);
    return function ? function->bytes : 0;
}
