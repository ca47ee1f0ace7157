/* Readahead: see readahead.h. */
#include "image/readahead.h"

#include <string.h>

#include "base/bytes.h"

/* Reads of one stream may overtake each other by this much: a kernel sends several at a time. */
#define SLACK (256 * KIB)

/* Continuations before anything is read ahead, so that random reads which happen to touch do not start it. */
#define HITS_MIN 2

/* Reads at one distance before anything is read ahead; of random ones, three may happen to be. */
#define STRIDE_HITS_MIN 4

void readahead_init(struct readahead *readahead, uint64_t block_count, uint32_t block_size, size_t memory_bytes)
{
    *readahead = (struct readahead){
        .block_count = block_count,
        .block_size = block_size,
        .window_max = (uint32_t)min_u64(READAHEAD_WINDOW_MAX, memory_bytes / READAHEAD_STREAMS / block_size),
    };
    memset(readahead->starts, 0xff, sizeof(readahead->starts)); /* nowhere */
}

static bool is_near(const struct readahead_stream *stream, uint64_t offset)
{
    return stream->end && offset + SLACK >= stream->end && offset <= stream->end + SLACK;
}

/* The stream that a read at OFFSET is part of; NULL: none. */
static struct readahead_stream *find_stream(struct readahead *readahead, uint64_t offset)
{
    struct readahead_stream *found = NULL;

    for (size_t i = 0; i < READAHEAD_STREAMS; i++) {
        struct readahead_stream *stream = &readahead->streams[i];

        /* Two may be near: the one that it continues exactly, else the one used last. */
        if (is_near(stream, offset) && (!found || stream->end == offset ||
                                        (found->end != offset && stream->used > found->used)))
            found = stream;
    }
    return found;
}

/* The stream to give up for a new one: one that nobody continued, else the one unused the longest. */
static struct readahead_stream *find_victim(struct readahead *readahead)
{
    struct readahead_stream *victim = &readahead->streams[0];

    for (size_t i = 1; i < READAHEAD_STREAMS; i++) {
        struct readahead_stream *stream = &readahead->streams[i];
        bool active = stream->hit_count >= HITS_MIN, victim_active = victim->hit_count >= HITS_MIN;

        if (active != victim_active ? victim_active : stream->used < victim->used)
            victim = stream;
    }
    return victim;
}

/* The window doubles each time that half of it has been used up: short streams should not cost much. */
static void grow(const struct readahead *readahead, struct readahead_stream *stream, uint64_t next)
{
    uint32_t least = readahead->near ? READAHEAD_WINDOW_MIN_NEAR : READAHEAD_WINDOW_MIN;

    if (next < stream->grow_at)
        return;
    stream->window = (uint32_t)min_u64(readahead->window_max, stream->window ? stream->window * 2 : least);
    stream->grow_at = next + stream->window / 2;
}

/* What to fetch so that the window ahead of STREAM is full again, in steps of an eighth of it. */
static uint32_t refill(const struct readahead *readahead, struct readahead_stream *stream, uint64_t *first_out)
{
    uint64_t next = divide_up(stream->end, readahead->block_size);
    uint64_t target;

    grow(readahead, stream, next);
    stream->ahead = max_u64(stream->ahead, next);
    target = min_u64(next + stream->window, readahead->block_count);
    if (target <= stream->ahead || (target - stream->ahead < stream->window / 8 && target < readahead->block_count))
        return 0;
    *first_out = stream->ahead;
    stream->ahead = target;
    return (uint32_t)(target - *first_out);
}

/* The stream that has read what lies at OFFSET; NULL: none. */
static struct readahead_stream *stream_with(struct readahead *readahead, uint64_t offset)
{
    for (size_t i = 0; i < READAHEAD_STREAMS; i++) {
        struct readahead_stream *stream = &readahead->streams[i];

        if (offset / readahead->block_size * readahead->block_size < stream->end &&
            offset + readahead->block_size > stream->start)
            return stream;
    }
    return NULL;
}

/* ---- Strides ---- */

/* The stride that a read at OFFSET continues; NULL: none. */
static struct readahead_stride *find_stride(struct readahead *readahead, uint64_t offset)
{
    for (size_t i = 0; i < READAHEAD_STRIDES; i++) {
        struct readahead_stride *stride = &readahead->strides[i];

        if (stride->step && stride->last + (uint64_t)stride->step == offset)
            return stride;
    }
    return NULL;
}

static bool began_at(const struct readahead *readahead, uint64_t offset)
{
    for (size_t i = 0; i < READAHEAD_STREAMS; i++)
        if (readahead->starts[i] == offset)
            return true;
    return false;
}

/* Is a stream that begins at OFFSET the third of three at one distance? Then remember that. */
static void note_start(struct readahead *readahead, uint64_t offset)
{
    struct readahead_stride *victim = &readahead->strides[0];
    int64_t step = 0;

    for (size_t i = 0; i < READAHEAD_STREAMS && !step; i++) {
        uint64_t before = readahead->starts[i], distance = before < offset ? offset - before : before - offset;

        if (before != UINT64_MAX && distance > SLACK && distance <= READAHEAD_STRIDE_MAX &&
            began_at(readahead, before - (offset - before)))
            step = (int64_t)(offset - before);
    }
    memmove(readahead->starts + 1, readahead->starts, sizeof(readahead->starts) - sizeof(readahead->starts[0]));
    readahead->starts[0] = offset;
    if (!step)
        return;
    for (size_t i = 1; i < READAHEAD_STRIDES; i++)
        if (readahead->strides[i].used < victim->used)
            victim = &readahead->strides[i];
    *victim = (struct readahead_stride){.last = offset, .step = step, .hit_count = 3, .used = readahead->clock};
}

/* How many reads of a stride to stay ahead: more with each that has come true, and no more than memory has room for. */
static uint32_t stride_window(const struct readahead *readahead, const struct readahead_stride *stride, uint32_t count)
{
    uint64_t most = min_u64(READAHEAD_PIECES_MAX, readahead->window_max / count);

    return (uint32_t)min_u64(most, UINT64_C(1) << min_u64(stride->hit_count - STRIDE_HITS_MIN + 1, 5));
}

/* A read of SIZE bytes at OFFSET has come as STRIDE foresaw. What to fetch of those behind it. */
static size_t continue_stride(struct readahead *readahead, struct readahead_stride *stride, uint64_t offset,
                              uint64_t size, struct readahead_piece pieces_out[READAHEAD_PIECES_MAX])
{
    const struct readahead_stream *before = stream_with(readahead, stride->last);
    uint32_t block_size = readahead->block_size, count, window;
    size_t pieces = 0;

    stride->miss_count += before ? before->miss_count : 0;
    if (before && before->start == stride->last)
        size = max_u64(size, before->end - before->start);
    count = (uint32_t)min_u64(divide_up(size + offset % block_size, block_size), READAHEAD_WINDOW_MAX);
    stride->last = offset;
    stride->used = readahead->clock;
    stride->ahead -= stride->ahead > 0;
    if (++stride->hit_count < STRIDE_HITS_MIN)
        return 0;
    for (window = stride_window(readahead, stride, count); stride->ahead < window; stride->ahead++) {
        uint64_t at = offset + (uint64_t)stride->step * (stride->ahead + 1), first = at / block_size;

        /* Below zero it wraps. */
        if (first >= readahead->block_count)
            break;
        pieces_out[pieces++] =
            (struct readahead_piece){first, (uint32_t)min_u64(count, readahead->block_count - first)};
    }
    return pieces;
}

/* ---- For disk.c ---- */

size_t readahead_note(struct readahead *readahead, uint64_t offset, uint64_t size,
                      struct readahead_piece pieces_out[READAHEAD_PIECES_MAX])
{
    struct readahead_stream *stream = find_stream(readahead, offset);
    struct readahead_stride *stride;
    uint64_t end = offset + size;
    size_t pieces = 0;

    readahead->clock++;
    if (!stream) {
        stride = find_stride(readahead, offset);
        if (stride)
            pieces = continue_stride(readahead, stride, offset, size, pieces_out);
        else
            note_start(readahead, offset);
        stream = find_victim(readahead);
        *stream = (struct readahead_stream){.start = offset, .end = end, .used = readahead->clock};
        return pieces;
    }
    stream->used = readahead->clock;
    /* The same bytes again are no progress. */
    if (end <= stream->end)
        return 0;
    stream->end = end;
    stream->hit_count++;
    if (stream->hit_count < HITS_MIN || end - stream->start < readahead->block_size)
        return 0;
    pieces_out->count = refill(readahead, stream, &pieces_out->first);
    return pieces_out->count != 0;
}

void readahead_note_miss(struct readahead *readahead, uint64_t offset)
{
    struct readahead_stream *stream = stream_with(readahead, offset);

    if (stream)
        stream->miss_count++;
}

uint32_t readahead_misses(struct readahead *readahead, uint64_t offset)
{
    const struct readahead_stream *stream = stream_with(readahead, offset);
    const struct readahead_stride *stride = NULL;

    for (size_t i = 0; stream && i < READAHEAD_STRIDES; i++)
        if (readahead->strides[i].step && readahead->strides[i].last == stream->start)
            stride = &readahead->strides[i];
    return (stream ? stream->miss_count : 0) + (stride ? stride->miss_count : 0);
}

size_t readahead_positions(const struct readahead *readahead, uint64_t positions_out[READAHEAD_STREAMS])
{
    const struct readahead_stream *sorted[READAHEAD_STREAMS];
    size_t count = 0;

    for (size_t i = 0; i < READAHEAD_STREAMS; i++) {
        const struct readahead_stream *stream = &readahead->streams[i];
        size_t at = count;

        if (!stream->end)
            continue;
        for (; at > 0 && sorted[at - 1]->used < stream->used; at--)
            sorted[at] = sorted[at - 1];
        sorted[at] = stream;
        count++;
    }
    for (size_t i = 0; i < count; i++)
        positions_out[i] = sorted[i]->end - 1;
    return count;
}
