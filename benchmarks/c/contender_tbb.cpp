// task_group of oneTBB. A job has no future of its own; the group is waited for as a whole, and the
// thread that waits runs jobs itself. So `workers` counts that thread, as it does for TBB.
#include <vector>

#include <oneapi/tbb/global_control.h>
#include <oneapi/tbb/task_arena.h>
#include <oneapi/tbb/task_group.h>

#include "contender.h"

namespace
{

struct TbbPool {
    explicit TbbPool(int workers)
        : threads(oneapi::tbb::global_control::max_allowed_parallelism,
                  static_cast<size_t>(workers)),
          arena(workers)
    {
    }

    oneapi::tbb::global_control threads;
    oneapi::tbb::task_arena arena;
    oneapi::tbb::task_group group;
};

void *open_pool(int workers)
{
    return new TbbPool(workers);
}

bool burst(void *opaque, size_t count)
{
    TbbPool *pool = static_cast<TbbPool *>(opaque);
    std::vector<char> ended(count, 0); // what each job writes, so that none can be left out
    char *bytes = ended.data();
    pool->arena.execute([pool, bytes, count] {
        for (size_t i = 0; i < count; i++)
            pool->group.run([bytes, i] { bytes[i] = 1; });
        pool->group.wait();
    });
    for (char each : ended)
        if (each != 1)
            return false;
    return true;
}

void close_pool(void *opaque)
{
    delete static_cast<TbbPool *>(opaque);
}

} // namespace

extern "C" const struct contender contender_tbb = {"oneTBB task_group", open_pool, nullptr, burst,
                                                   close_pool};
