/* Blocks of shared memory for payloads that do not fit into a job slot. */
#include "arena.h"

#include <errno.h>
#include <stdalign.h>

#include "block.h"

/* Blocks smaller than a page are committed many at a time, and stay committed. A larger one commits
 * for itself what is asked of it, in steps, and its memory can be given back. */
#define SMALL_CLASS_BITS 12
#define BATCH_BYTES (UINT64_C(1) << 16)

void arena_plan(struct arena *arena, struct segment *segment, unsigned processes, uint64_t largest)
{
    unsigned size_class;

    arena->segment = segment;
    arena->header = segment_reserve(segment, sizeof(struct arena_header));
    arena->classes = 0;
    arena->holder_words = (processes + 63) / 64;
    for (size_class = 0; size_class < ARENA_CLASSES; size_class++) {
        struct arena_class *c = &arena->size_class[size_class];
        uint64_t entries = largest >> class_bits(size_class);

        /* The last class is the first that a block of `largest` bytes fits into. */
        if (size_class > 0 && (UINT64_C(1) << class_bits(size_class - 1)) >= largest)
            break;
        c->entries = entries < 1 ? 1 : entries < FREEMAP_MAX ? (uint32_t)entries : FREEMAP_MAX;
        freemap_plan(&c->map, segment, c->entries);
        c->words = segment_reserve(segment, c->entries * sizeof(uint64_t));
        c->details = segment_reserve(segment, c->entries * sizeof(struct block_details));
        c->holders =
            segment_reserve(segment, (uint64_t)c->entries * arena->holder_words * sizeof(uint64_t));
        c->blocks = segment_reserve(segment, (uint64_t)c->entries << class_bits(size_class));
        arena->classes++;
    }
}

int arena_start(struct arena *arena)
{
    return segment_commit(arena->segment, arena->header, sizeof(struct arena_header));
}

static int class_for(const struct arena *arena, uint64_t size)
{
    int size_class = 0;

    if (size > (UINT64_C(1) << ARENA_MIN_BITS))
        size_class = 64 - __builtin_clzll(size - 1) - ARENA_MIN_BITS;
    return size_class < (int)arena->classes ? size_class : -E2BIG;
}

/* FREE -> HELD by owner: one wins. Death right after: arena_repair() finds it. */
static bool hold(struct arena *arena, unsigned size_class, uint32_t index, uint16_t owner)
{
    uint64_t expected = FREE_WORD;

    return shared_cas(word_of(arena, size_class, index), &expected, block_word(BLOCK_HELD, owner),
                      ACQ_REL);
}

/* A block's memory is in use as long as the block is not free, so its age counts from here. Not
 * `shared_store`: it decides nothing but when pages go back, and whoever is too late to free the
 * block has written what is true all the same. */
static void note_use(struct arena *arena, unsigned size_class, uint32_t index)
{
    atomic_store_explicit(&details_of(arena, size_class, index)->used,
                          atomic_load_explicit(tick_of(arena), RELAXED), RELAXED);
}

/* `from` -> FREE, and then the hint. Death between the two: arena_repair() gives the hint. */
static bool release(struct arena *arena, block_ref ref, uint64_t from)
{
    unsigned size_class = ref_class(ref);

    if (ref_valid(arena, ref) && class_bits(size_class) >= SMALL_CLASS_BITS)
        note_use(arena, size_class, ref_index(ref));
    if (!ref_valid(arena, ref) ||
        !shared_cas(word_of(arena, size_class, ref_index(ref)), &from, FREE_WORD, ACQ_REL))
        return false;
    freemap_set(&arena->size_class[size_class].map, ref_index(ref));
    return true;
}

/* More blocks of a class: one of them to the caller, HELD, and hints for the others. */
static int extend(struct arena *arena, unsigned size_class, uint16_t owner, uint32_t *index)
{
    struct arena_class *c = &arena->size_class[size_class];
    uint32_t batch = class_bits(size_class) < SMALL_CLASS_BITS
                         ? (uint32_t)(BATCH_BYTES >> class_bits(size_class))
                         : 1;
    uint32_t count = checked_count(arena, size_class);

    for (;;) {
        uint32_t more = c->entries - count < batch ? c->entries - count : batch, i;
        int error;

        if (more == 0)
            return -ENOMEM;
        error = freemap_commit(&c->map, count + more);
        if (!error)
            error = segment_commit(arena->segment, c->words + count * sizeof(uint64_t),
                                   more * sizeof(uint64_t));
        if (!error)
            error =
                segment_commit(arena->segment, c->details + count * sizeof(struct block_details),
                               more * sizeof(struct block_details));
        if (!error && arena->holder_words)
            error = segment_commit(arena->segment,
                                   c->holders +
                                       (uint64_t)count * arena->holder_words * sizeof(uint64_t),
                                   (uint64_t)more * arena->holder_words * sizeof(uint64_t));
        if (!error && class_bits(size_class) < SMALL_CLASS_BITS)
            error = segment_commit(arena->segment, block_offset(arena, size_class, count),
                                   (uint64_t)more << class_bits(size_class));
        if (error) {
            uint32_t before = count;

            /* At the limit the memory may have gone to another process, for these very blocks. */
            count = checked_count(arena, size_class);
            if (count == before)
                return error;
            continue;
        }
        /* The blocks exist from here on. Death before: the next one does the same; right after:
         * they are free and have no hints until the repair. */
        if (!shared_cas(count_of(arena, size_class), &count, count + more, ACQ_REL)) {
            count = checked_count(arena, size_class);
            continue;
        }
        for (i = 1; i < more; i++)
            freemap_set(&c->map, count + i);
        *index = count;
        if (hold(arena, size_class, count, owner))
            return 0;
        count += more; /* a repair gave its hint, and somebody was quicker */
    }
}

/* Makes a held block's first `size` bytes usable. */
static int commit_block(struct arena *arena, unsigned size_class, uint32_t index, uint64_t size)
{
    struct block_details *details = details_of(arena, size_class, index);
    uint64_t committed = shared_load(&details->committed, RELAXED);
    uint64_t need = (size + BATCH_BYTES - 1) / BATCH_BYTES * BATCH_BYTES;
    int error;

    if (class_bits(size_class) < SMALL_CLASS_BITS || committed >= size)
        return 0;
    if (need > UINT64_C(1) << class_bits(size_class))
        need = UINT64_C(1) << class_bits(size_class);
    if (committed % arena->segment->page)
        committed = 0; /* scribbled over */
    error = segment_commit(arena->segment, block_offset(arena, size_class, index) + committed,
                           need - committed);
    if (!error)
        shared_store(&details->committed, need, RELAXED);
    return error;
}

/* A block that is HELD from now on has `size` bytes. */
static void begin_use(struct arena *arena, block_ref ref, uint64_t size)
{
    struct block_details *details = details_of(arena, ref_class(ref), ref_index(ref));

    shared_store(&details->size, size, RELAXED);
    shared_store(&details->used, shared_load(tick_of(arena), RELAXED), RELAXED);
    shared_store(&details->stamp, shared_load(&details->stamp, RELAXED) + 1, RELAXED);
}

/* A free block of a class, HELD from now on, if `size` bytes of it are committed. */
static bool take_from(struct arena *arena, unsigned size_class, uint16_t owner, uint64_t size,
                      block_ref *ref)
{
    uint32_t index = 0;

    do {
        if (!freemap_take(&arena->size_class[size_class].map, &index))
            return false;
    } while (!hold(arena, size_class, index, owner));
    *ref = block_ref_make(size_class, index);
    if (class_bits(size_class) < SMALL_CLASS_BITS ||
        shared_load(&details_of(arena, size_class, index)->committed, RELAXED) >= size)
        return true;
    arena_free_held(arena, *ref, owner);
    return false;
}

bool arena_take(struct arena *arena, uint16_t owner, uint64_t size, block_ref *ref)
{
    int first = class_for(arena, size);
    unsigned size_class;

    if (first < 0)
        return false;
    /* What has a little more to it, as a result has beside its array, may be of the next class. */
    for (size_class = (unsigned)first; size_class <= (unsigned)first + 1; size_class++)
        if (size_class < arena->classes && take_from(arena, size_class, owner, size, ref)) {
            begin_use(arena, *ref, size);
            return true;
        }
    return false;
}

int arena_alloc(struct arena *arena, uint16_t owner, uint64_t size, block_ref *ref)
{
    int size_class = class_for(arena, size);
    uint32_t index = 0;
    bool held = false;
    int error;

    if (size_class < 0 || size > arena->segment->limit)
        return -E2BIG;
    while (!held && freemap_take(&arena->size_class[size_class].map, &index))
        held = hold(arena, (unsigned)size_class, index, owner);
    if (!held) {
        error = extend(arena, (unsigned)size_class, owner, &index);
        if (error)
            return error;
    }
    *ref = block_ref_make((unsigned)size_class, index);
    error = commit_block(arena, (unsigned)size_class, index, size);
    if (error) {
        arena_free_held(arena, *ref, owner);
        *ref = 0;
        return error;
    }
    begin_use(arena, *ref, size);
    return 0;
}

int arena_lookup(const struct arena *arena, block_ref ref, void **memory, uint64_t *size)
{
    unsigned size_class = ref_class(ref);
    uint64_t length;

    if (!ref_valid(arena, ref))
        return -EINVAL;
    length = shared_load(&details_of(arena, size_class, ref_index(ref))->size, RELAXED);
    if (length > UINT64_C(1) << class_bits(size_class))
        return -EINVAL;
    *memory = segment_at(arena->segment, block_offset(arena, size_class, ref_index(ref)));
    *size = length;
    return 0;
}

bool arena_is_shared(const struct arena *arena, block_ref ref)
{
    return block_exists(arena, ref) &&
           word_state(shared_load(word_of(arena, ref_class(ref), ref_index(ref)), ACQUIRE)) ==
               BLOCK_SHARED;
}

bool arena_is_attached(const struct arena *arena, block_ref ref, uint32_t job)
{
    return block_exists(arena, ref) && shared_load(word_of(arena, ref_class(ref), ref_index(ref)),
                                                   ACQUIRE) == block_word(BLOCK_ATTACHED, job);
}

bool arena_is_held(const struct arena *arena, block_ref ref, uint16_t owner)
{
    return block_exists(arena, ref) && owner / 64 < arena->holder_words &&
           (shared_load(holders_of(arena, ref_class(ref), ref_index(ref)) + owner / 64, RELAXED) &
            holder_bit(owner));
}

static bool pass_on(struct arena *arena, block_ref ref, uint16_t owner, uint64_t to)
{
    uint64_t from = block_word(BLOCK_HELD, owner);

    return ref_valid(arena, ref) &&
           shared_cas(word_of(arena, ref_class(ref), ref_index(ref)), &from, to, ACQ_REL);
}

bool arena_attach(struct arena *arena, block_ref ref, uint16_t owner, uint32_t job)
{
    return pass_on(arena, ref, owner, block_word(BLOCK_ATTACHED, job));
}

bool arena_share(struct arena *arena, block_ref ref, uint16_t owner)
{
    return ref_valid(arena, ref) &&
           pass_on(arena, ref, owner, block_word(BLOCK_SHARED, stamp_of(arena, ref)));
}

static void set_holder(struct arena *arena, block_ref ref, uint16_t owner)
{
    shared_or(holders_of(arena, ref_class(ref), ref_index(ref)) + owner / 64, holder_bit(owner),
              SEQ_CST);
}

bool arena_keep(struct arena *arena, block_ref ref, uint16_t owner)
{
    if (!ref_valid(arena, ref) || owner / 64 >= arena->holder_words)
        return false;
    /* The bit first: a RELEASED block without it is anybody's to reclaim. Death right after: the
     * block is HELD by the dead. */
    set_holder(arena, ref, owner);
    return pass_on(arena, ref, owner, block_word(BLOCK_RELEASED, stamp_of(arena, ref)));
}

bool arena_give(struct arena *arena, block_ref ref, uint16_t owner, uint32_t job)
{
    _Atomic uint64_t *at;
    uint64_t word;

    if (!arena_is_held(arena, ref, owner))
        return false;
    at = word_of(arena, ref_class(ref), ref_index(ref));
    word = shared_load(at, ACQUIRE);
    /* RELEASED -> ATTACHED: the bit stays until owner drops the block, so that nobody can have
     * reclaimed it. Death before: the repair does; right after: it is the job's, which names it. */
    while (word_state(word) == BLOCK_RELEASED)
        if (shared_cas(at, &word, block_word(BLOCK_ATTACHED, job), ACQ_REL))
            return true;
    return false;
}

bool arena_free_held(struct arena *arena, block_ref ref, uint16_t owner)
{
    return release(arena, ref, block_word(BLOCK_HELD, owner));
}

/* ---- Holders ---- */

static bool is_held(const struct arena *arena, block_ref ref)
{
    unsigned i;

    for (i = 0; i < arena->holder_words; i++)
        if (shared_load(holders_of(arena, ref_class(ref), ref_index(ref)) + i, SEQ_CST) != 0)
            return true;
    return false;
}

/* RELEASED -> FREE if nobody holds it. Who releases it and who drops it write first, the word and
 * the bit, and then look at what the other writes, all sequentially consistent: so one of them sees
 * both, and if both do, the compare-and-swap lets one through. Death before it: the repair, which
 * looks at every block, comes here again. */
static void reclaim(struct arena *arena, block_ref ref)
{
    uint64_t word = shared_load(word_of(arena, ref_class(ref), ref_index(ref)), SEQ_CST);

    if (word_state(word) == BLOCK_RELEASED && !is_held(arena, ref))
        release(arena, ref, word);
}

bool arena_free_attached(struct arena *arena, block_ref ref, uint32_t job)
{
    uint64_t word = block_word(BLOCK_ATTACHED, job);

    if (!block_exists(arena, ref))
        return false;
    /* Only the job's worker comes to hold it, before the job's end, which we come after, and who
     * collects the job, as we do. */
    if (!is_held(arena, ref))
        return release(arena, ref, word);
    /* ATTACHED -> RELEASED: one wins. */
    if (!shared_cas(word_of(arena, ref_class(ref), ref_index(ref)), &word,
                    block_word(BLOCK_RELEASED, stamp_of(arena, ref)), SEQ_CST))
        return false;
    reclaim(arena, ref);
    return true;
}

bool arena_free_shared(struct arena *arena, block_ref ref)
{
    _Atomic uint64_t *at;
    uint64_t word;

    if (!block_exists(arena, ref))
        return false;
    at = word_of(arena, ref_class(ref), ref_index(ref));
    word = shared_load(at, ACQUIRE);
    /* SHARED -> RELEASED: one wins. */
    if (word_state(word) != BLOCK_SHARED ||
        !shared_cas(at, &word, block_word(BLOCK_RELEASED, (uint32_t)(word >> 32)), SEQ_CST))
        return false;
    reclaim(arena, ref);
    return true;
}

bool arena_hold(struct arena *arena, block_ref ref, uint16_t owner)
{
    _Atomic uint64_t *at;
    uint64_t word;

    if (!block_exists(arena, ref) || owner / 64 >= arena->holder_words)
        return false;
    /* The bit first: if the block is still there after that, whoever frees it will see the bit.
     * Only this process sets and clears it. Death right after: the repair clears it. */
    set_holder(arena, ref, owner);
    at = word_of(arena, ref_class(ref), ref_index(ref));
    word = shared_load(at, SEQ_CST);
    /* RELEASED -> RELEASED, another version: whoever has seen no holder fails to free the block;
     * who looks from here on sees the bit. It fails when others hold it or it is FREE. */
    while (word_state(word) == BLOCK_RELEASED)
        if (shared_cas(at, &word, next_version(word), SEQ_CST))
            return true;
    if (word_state(word) == BLOCK_SHARED || word_state(word) == BLOCK_ATTACHED)
        return true;
    arena_drop(arena, ref, owner);
    return false;
}

void arena_drop(struct arena *arena, block_ref ref, uint16_t owner)
{
    _Atomic uint64_t *holders;

    if (!block_exists(arena, ref) || owner / 64 >= arena->holder_words)
        return;
    holders = holders_of(arena, ref_class(ref), ref_index(ref)) + owner / 64;
    /* Death right after: the repair reclaims. */
    if (shared_load(holders, RELAXED) & holder_bit(owner))
        shared_and(holders, ~holder_bit(owner), SEQ_CST);
    reclaim(arena, ref);
}

block_ref arena_find(const struct arena *arena, const void *address, uint16_t owner)
{
    const unsigned char *at = address, *base = segment_at(arena->segment, 0);
    unsigned size_class;

    for (size_class = 0; at >= base && size_class < arena->classes; size_class++) {
        const struct arena_class *c = &arena->size_class[size_class];
        uint64_t offset = (uint64_t)(at - base) - c->blocks;
        block_ref ref;

        if ((uint64_t)(at - base) < c->blocks || offset >> class_bits(size_class) >= c->entries)
            continue;
        ref = block_ref_make(size_class, (uint32_t)(offset >> class_bits(size_class)));
        return arena_is_shared(arena, ref) || arena_is_held(arena, ref, owner) ? ref : 0;
    }
    return 0;
}

void arena_repair(struct arena *arena, uint16_t owner)
{
    unsigned size_class;

    for (size_class = 0; size_class < arena->classes; size_class++) {
        struct freemap *map = &arena->size_class[size_class].map;
        uint32_t index, count = checked_count(arena, size_class);

        for (index = 0; index < count; index++) {
            block_ref ref = block_ref_make(size_class, index);
            uint64_t word;

            /* Whatever the block is now: the dead may have come too late to hold it, and had its
             * bit there still. */
            arena_drop(arena, ref, owner);
            word = shared_load(word_of(arena, size_class, index), ACQUIRE);
            if (word == block_word(BLOCK_HELD, owner))
                release(arena, ref, word);
            else if (word == FREE_WORD)
                freemap_set(map, index);
        }
        freemap_repair(map, count);
    }
}

void arena_tick(struct arena *arena)
{
    shared_add(tick_of(arena), 1, RELAXED);
}

uint64_t arena_trim(struct arena *arena, uint16_t owner, uint32_t age)
{
    uint32_t tick = shared_load(tick_of(arena), RELAXED);
    unsigned size_class;
    uint64_t given = 0;

    for (size_class = SMALL_CLASS_BITS - ARENA_MIN_BITS; size_class < arena->classes;
         size_class++) {
        uint32_t index, count = checked_count(arena, size_class);

        for (index = 0; index < count; index++) {
            struct block_details *details = details_of(arena, size_class, index);
            uint64_t committed = shared_load(&details->committed, RELAXED);

            if (committed == 0 || tick - shared_load(&details->used, RELAXED) < age ||
                !hold(arena, size_class, index, owner))
                continue;
            /* Held, so nobody uses it while its pages go. Should we die before the release, it
             * is only a free block whose details say more than is committed; so say less first. */
            committed = shared_exchange(&details->committed, 0, RELAXED);
            if (segment_release(arena->segment, block_offset(arena, size_class, index),
                                UINT64_C(1) << class_bits(size_class)) == 0)
                given += committed;
            arena_free_held(arena, block_ref_make(size_class, index), owner);
        }
    }
    return given;
}
