/* The device behind driver.c: what there is, how kernels run, and streams. */
#define _GNU_SOURCE
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>

#include "../kernels/frames.cu"

enum result {
    OK = 0, INVALID_VALUE = 1, OUT_OF_MEMORY = 2, NOT_INITIALIZED = 3, INVALID_DEVICE = 101, INVALID_CONTEXT = 201,
    INVALID_HANDLE = 400, NOT_FOUND = 500, NOT_READY = 600, ILLEGAL_ADDRESS = 700, MISALIGNED_ADDRESS = 716,
    LAUNCH_FAILED = 719, NOT_SUPPORTED = 801,
};

/* As long as the device's memory: the mapping without rights, and as far behind it the shadow. */
#define ARENA (8ull << 30)
/* Between allocations, so that a few bytes too many are nobody's. */
#define GUARD 512
#define FRESH 0xa5

struct counters {
    u64 htod_bytes, htod_calls, dtoh_bytes, dtoh_calls, dtod_bytes, dtod_calls;
    /* Copies that waited because main memory was not pinned. */
    u64 pageable_calls;
    u64 fills, launches, allocations, pinned_allocations;
    u64 stream_waits, event_waits, context_waits;
    /* What there is now. */
    u64 live_allocations, live_bytes, live_pinned, live_streams, live_events, live_modules, live_contexts, retained;
};

struct context {
    struct context *next;
    int primary;
    /* A result that every call has from now on. */
    int failed;
    struct stream *fallback;
};

struct event {
    int references;
    int has_timing;
    u64 recorded, reached;
    struct timespec when;
};

enum kind { COPY, FILL, LAUNCH, RECORD, WAIT_EVENT, WAIT_STREAM, CALL };

struct side { int is_device; u64 address; size_t pitch; };

struct function { const char *name; size_t bytes; void (*run)(const void *job); };

struct op {
    struct op *next;
    enum kind kind;
    struct side from, to;
    size_t width, height;
    u8 byte;
    const struct function *function;
    void *job;
    u32 grid[3], block[3];
    int fails;
    struct event *event;
    struct stream *other;
    u64 version;
    void (*call)(void *);
    void *user;
};

/* Never freed: a handle that is used too late is found out and not followed. */
struct stream {
    struct stream *next;
    struct context *context;
    struct op *head, *tail;
    u64 queued, done;
    int blocking, stalled, closed;
    pthread_t thread;
};

struct allocation {
    struct allocation *next;
    u64 address;
    size_t bytes;
    struct context *context;
};

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t changed = PTHREAD_COND_INITIALIZER;
static int started, all_stalled;
static struct counters counters;
/* -1: never. */
static long fail_launches = -1, refuse_launches = -1, fail_allocations = -1;
static u8 *arena;
static struct allocation *allocations, *pinned;
static struct context *contexts, *primary;
static struct stream *streams;
static _Thread_local struct context *stack[16];
static _Thread_local int depth;

/* ---- kernels ---- */

struct range { u64 first, end; };

static _Thread_local struct context *running;
static _Thread_local struct range known[8];
static _Thread_local int next_known, fault;

static struct allocation *allocation_of(u64 address, size_t bytes) {
    struct allocation *a;
    for (a = allocations; a; a = a->next) {
        if (address >= a->address && bytes <= a->bytes && address - a->address <= a->bytes - bytes) {
            return a;
        }
    }
    return NULL;
}

static u8 *shadow(u64 address) { return (u8 *)address + ARENA; }

static u8 *at(u64 address, u32 bytes) {
    static _Thread_local u64 nowhere[2];
    struct allocation *a;
    int i;
    for (i = 0; i < 8; i++) {
        if (address >= known[i].first && address + bytes <= known[i].end) {
            break;
        }
    }
    if (i == 8) {
        pthread_mutex_lock(&lock);
        a = allocation_of(address, bytes);
        if (a && a->context == running) {
            i = next_known++ % 8;
            known[i].first = a->address;
            known[i].end = a->address + a->bytes;
        }
        pthread_mutex_unlock(&lock);
    }
    if (i == 8 || address % bytes) {
        fault = fault ? fault : i == 8 ? ILLEGAL_ADDRESS : MISALIGNED_ADDRESS;
        return (u8 *)nowhere;
    }
    return shadow(address);
}

static void run_into(const void *job) { frames_into(*(const struct into_job *)job); }
static void run_from(const void *job) { frames_from(*(const struct from_job *)job); }
static void run_invert(const void *job) { invert(*(const struct invert_job *)job); }

static const struct function functions[] = {
    {"frames_into", sizeof(struct into_job), run_into},
    {"frames_from", sizeof(struct from_job), run_from},
    {"invert", sizeof(struct invert_job), run_invert},
};

static const struct function *function_named(const char *name) {
    size_t i;
    for (i = 0; i < sizeof functions / sizeof *functions; i++) {
        if (!strcmp(functions[i].name, name)) {
            return &functions[i];
        }
    }
    return NULL;
}

static int launch(struct context *context, const struct op *op) {
    u32 blocks = op->grid[0] * op->grid[1] * op->grid[2], threads = op->block[0] * op->block[1] * op->block[2], b, t;
    if (op->fails) {
        return LAUNCH_FAILED;
    }
    running = context;
    memset(known, 0, sizeof known);
    fault = 0;
    gridDim = (struct index){op->grid[0], op->grid[1], op->grid[2]};
    blockDim = (struct index){op->block[0], op->block[1], op->block[2]};
    for (b = 0; b < blocks; b++) {
        blockIdx = (struct index){b % gridDim.x, b / gridDim.x % gridDim.y, b / gridDim.x / gridDim.y};
        for (t = 0; t < threads; t++) {
            threadIdx = (struct index){t % blockDim.x, t / blockDim.x % blockDim.y, t / blockDim.x / blockDim.y};
            op->function->run(op->job);
        }
    }
    return fault;
}

/* ---- streams ---- */

/* Of rows on the device; any context's, as a copy may go from one to another. */
static int rows_exist(const struct side *side, size_t width, size_t height) {
    int exist = 1;
    if (side->is_device && width && height) {
        pthread_mutex_lock(&lock);
        exist = allocation_of(side->address, side->pitch * (height - 1) + width) != NULL;
        pthread_mutex_unlock(&lock);
    }
    return exist;
}

static u8 *rows_at(const struct side *side) { return side->is_device ? shadow(side->address) : (u8 *)side->address; }

static int perform(struct context *context, const struct op *op) {
    size_t y;
    switch (op->kind) {
    case COPY:
        if (!rows_exist(&op->from, op->width, op->height) || !rows_exist(&op->to, op->width, op->height)) {
            return ILLEGAL_ADDRESS;
        }
        for (y = 0; y < op->height; y++) {
            memmove(rows_at(&op->to) + y * op->to.pitch, rows_at(&op->from) + y * op->from.pitch, op->width);
        }
        return OK;
    case FILL:
        if (!rows_exist(&op->to, op->width, 1)) {
            return ILLEGAL_ADDRESS;
        }
        memset(rows_at(&op->to), op->byte, op->width);
        return OK;
    case LAUNCH:
        return launch(context, op);
    case CALL:
        op->call(op->user);
        return OK;
    default:
        return OK;
    }
}

static void release(struct event *event) {
    if (--event->references == 0) {
        free(event);
    }
}

static void *serve(void *argument) {
    struct stream *stream = argument;
    pthread_mutex_lock(&lock);
    for (;;) {
        struct op *op = stream->head;
        if (!op && stream->closed) {
            break;
        }
        if (!op || stream->stalled || all_stalled || (op->kind == WAIT_EVENT && op->event->reached < op->version) ||
            (op->kind == WAIT_STREAM && op->other->done < op->version)) {
            pthread_cond_wait(&changed, &lock);
            continue;
        }
        if (op->kind == RECORD) {
            op->event->reached = op->version;
            clock_gettime(CLOCK_MONOTONIC, &op->event->when);
        } else if (op->kind != WAIT_EVENT && op->kind != WAIT_STREAM && !stream->context->failed) {
            int failed;
            pthread_mutex_unlock(&lock);
            failed = perform(stream->context, op);
            pthread_mutex_lock(&lock);
            if (failed) {
                stream->context->failed = failed;
            }
        }
        if (op->event) {
            release(op->event);
        }
        stream->head = op->next;
        stream->tail = stream->head ? stream->tail : NULL;
        stream->done++;
        free(op->job);
        free(op);
        pthread_cond_broadcast(&changed);
    }
    pthread_mutex_unlock(&lock);
    return NULL;
}

static struct stream *open_stream(struct context *context, int blocking) {
    struct stream *stream = calloc(1, sizeof *stream);
    stream->context = context;
    stream->blocking = blocking;
    if (pthread_create(&stream->thread, NULL, serve, stream)) {
        abort();
    }
    pthread_detach(stream->thread);
    stream->next = streams;
    streams = stream;
    return stream;
}

static void append(struct stream *stream, struct op op) {
    struct op *kept = malloc(sizeof op);
    *kept = op;
    kept->next = NULL;
    if (kept->event) {
        kept->event->references++;
    }
    *(stream->tail ? &stream->tail->next : &stream->head) = kept;
    stream->tail = kept;
    stream->queued++;
    pthread_cond_broadcast(&changed);
}

/* The default stream and those that are not made to ignore it wait for each other. */
static void enqueue(struct stream *stream, struct op op) {
    struct stream *other, *fallback = stream->context->fallback;
    for (other = streams; other; other = other->next) {
        int joined = stream == fallback ? other->blocking : stream->blocking && other == fallback;
        if (other != stream && other->context == stream->context && joined && other->done < other->queued) {
            append(stream, (struct op){.kind = WAIT_STREAM, .other = other, .version = other->queued});
        }
    }
    append(stream, op);
}

/* Waits until what is queued now is done. */
static void drain(struct stream *stream) {
    u64 until = stream->queued;
    while (stream->done < until) {
        pthread_cond_wait(&changed, &lock);
    }
}

static void drain_context(struct context *context) {
    struct stream *stream;
    for (stream = streams; stream; stream = stream->next) {
        if (!context || stream->context == context) {
            drain(stream);
        }
    }
}

static struct context *current(void) { return depth ? stack[depth - 1] : NULL; }

/* With the lock; what a call has to answer before it does anything. */
static int enter(void) {
    struct context *c;
    pthread_mutex_lock(&lock);
    if (!started) {
        return NOT_INITIALIZED;
    }
    for (c = contexts; c && c != current(); c = c->next) {
    }
    return c ? c->failed : INVALID_CONTEXT;
}

static int leave(int result) {
    pthread_mutex_unlock(&lock);
    return result;
}

static struct stream *stream_of(void *handle) {
    struct stream *stream;
    struct context *context = current();
    /* 1 and 2 are names of the default stream, too. */
    if ((u64)handle <= 2) {
        if (!context->fallback) {
            context->fallback = open_stream(context, 0);
        }
        return context->fallback;
    }
    for (stream = streams; stream && stream != handle; stream = stream->next) {
    }
    return stream && !stream->closed ? stream : NULL;
}
