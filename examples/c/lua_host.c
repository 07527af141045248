/* Lua in the workers of a pool: another language through the same struct pool_host.
 *
 * Each worker has a Lua state of its own, in which it runs a script once. A job is a call of one of
 * its functions: the program packs the function's name and arguments into the job's memory, and the
 * worker packs what it returns into the job's result. Numbers, strings, booleans and nil travel;
 * tables do not. */
#include <errno.h>
#include <inttypes.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <lauxlib.h>
#include <libpool.h>
#include <lua.h>
#include <lualib.h>

/* ---- Values in memory: a letter for the type, then the value -------------------------------- */

struct packed {
    char bytes[4000];
    size_t size;
};

/* -E2BIG: there is no room left. */
static int pack(struct packed *packed, char type, const void *data, size_t size)
{
    uint32_t length = (uint32_t)size;
    if (size > sizeof packed->bytes ||
        packed->size + 1 + sizeof length + size > sizeof packed->bytes)
        return -E2BIG;
    packed->bytes[packed->size] = type;
    memcpy(packed->bytes + packed->size + 1, &length, sizeof length);
    if (size)
        memcpy(packed->bytes + packed->size + 1 + sizeof length, data, size);
    packed->size += 1 + sizeof length + size;
    return 0;
}

/* The next value: its type, and what *data and *size are set to; 0 at the end, or if it is cut. */
static char unpack(const char **at, const char *end, const char **data, size_t *size)
{
    uint32_t length;
    if (end - *at < (ptrdiff_t)(1 + sizeof length))
        return 0;
    char type = **at;
    memcpy(&length, *at + 1, sizeof length);
    *data = *at + 1 + sizeof length;
    if (length > (size_t)(end - *data))
        return 0;
    *size = length;
    *at = *data + length;
    return type;
}

/* Pushes one value onto Lua's stack: false if it is none. */
static bool push(lua_State *lua, char type, const char *data, size_t size)
{
    lua_Integer integer;
    lua_Number number;
    if (type == 'i' && size == sizeof integer) {
        memcpy(&integer, data, sizeof integer);
        lua_pushinteger(lua, integer);
    } else if (type == 'n' && size == sizeof number) {
        memcpy(&number, data, sizeof number);
        lua_pushnumber(lua, number);
    } else if (type == 's') {
        lua_pushlstring(lua, data, size);
    } else if (type == 'b' && size == 1) {
        lua_pushboolean(lua, *data);
    } else if (type == '0') {
        lua_pushnil(lua);
    } else {
        return false;
    }
    return true;
}

/* Packs the value at a place of Lua's stack. -EPROTO: it can't travel. */
static int pack_lua(lua_State *lua, int index, struct packed *packed)
{
    size_t size;
    switch (lua_type(lua, index)) {
    case LUA_TNIL:
        return pack(packed, '0', NULL, 0);
    case LUA_TBOOLEAN:
        return pack(packed, 'b', &(char){(char)lua_toboolean(lua, index)}, 1);
    case LUA_TNUMBER:
        if (lua_isinteger(lua, index))
            return pack(packed, 'i', &(lua_Integer){lua_tointeger(lua, index)},
                        sizeof(lua_Integer));
        return pack(packed, 'n', &(lua_Number){lua_tonumber(lua, index)}, sizeof(lua_Number));
    case LUA_TSTRING: {
        const char *text = lua_tolstring(lua, index, &size);
        return pack(packed, 's', text, size);
    }
    default:
        return -EPROTO;
    }
}

/* ---- The hooks: they run in the worker ------------------------------------------------------ */

static const char script[] = "function count(n)\n"
                             "  local primes = 0\n"
                             "  for candidate = 2, n - 1 do\n"
                             "    local prime = true\n"
                             "    for d = 2, math.floor(candidate ^ 0.5) do\n"
                             "      if candidate % d == 0 then prime = false; break end\n"
                             "    end\n"
                             "    if prime then primes = primes + 1 end\n"
                             "  end\n"
                             "  return primes, 'primes below', n, primes / n\n"
                             "end\n"
                             "function fail(n) return n .. nil end\n"
                             "function crash(n) os.exit(n) end\n";

struct host {
    lua_State *lua;
};

static int on_start(void *context, struct pool *pool, unsigned worker)
{
    struct host *host = context;
    (void)pool;
    host->lua = luaL_newstate();
    if (host->lua == NULL)
        return -ENOMEM; /* perhaps another worker fares better */
    luaL_openlibs(host->lua);
    if (luaL_dostring(host->lua, script) == LUA_OK)
        return 0;
    fprintf(stderr, "lua_host: worker %u: %s\n", worker, lua_tostring(host->lua, -1));
    _exit(POOL_EXIT_HOPELESS); /* no other worker would */
}

static int add_traceback(lua_State *lua)
{
    luaL_traceback(lua, lua, luaL_tolstring(lua, 1, NULL), 1);
    return 1;
}

static int on_run(void *context, struct pool_job *job)
{
    lua_State *lua = ((struct host *)context)->lua;
    struct packed results = {.size = 0};
    size_t size, count;
    const char *at = pool_job_argument(job, &size), *end = at + size, *data;
    char type = unpack(&at, end, &data, &count); /* the function's name */

    lua_settop(lua, 0);
    if (type != 's' || !lua_checkstack(lua, 200))
        return -EINVAL;
    lua_pushcfunction(lua, add_traceback);
    lua_pushglobaltable(lua);
    lua_pushlstring(lua, data, count);
    lua_rawget(lua, -2);
    lua_remove(lua, -2);
    int arguments = 0;
    while ((type = unpack(&at, end, &data, &count)) != 0 && arguments < 100) {
        if (!push(lua, type, data, count))
            return -EINVAL;
        arguments++;
    }

    int status = 0;
    if (lua_pcall(lua, arguments, LUA_MULTRET, 1) != LUA_OK)
        status = -EREMOTEIO; /* and the message, as result */
    for (int i = 2, error = 0; i <= lua_gettop(lua) && error == 0; i++) {
        error = pack_lua(lua, i, &results);
        if (error)
            status = error;
    }
    fflush(stdout); /* of print() */
    int error = pool_job_return(job, results.bytes, results.size);
    return status ? status : error;
}

static void on_stop(void *context)
{
    lua_close(((struct host *)context)->lua);
}

/* ---- The program ---------------------------------------------------------------------------- */

/* Lua has no lock to let go of while a worker sleeps, and nothing to do around fork(). */
static int make_pool(struct pool **pool)
{
    struct host context = {NULL}; /* workers are copies of this process as it is now */
    struct pool_host host = {.size = sizeof host,
                             .start = on_start,
                             .run = on_run,
                             .stop = on_stop,
                             .context = &context};
    struct pool_config config;
    pool_config_init(&config);
    config.host = &host;
    return pool_create(pool, &config);
}

/* Submits function(number). */
static int call(struct pool *pool, const char *function, lua_Integer number,
                struct pool_future *future)
{
    struct packed packed = {.size = 0};
    void *memory;
    int error = pack(&packed, 's', function, strlen(function));
    if (error == 0)
        error = pack(&packed, 'i', &number, sizeof number);
    if (error == 0)
        error = pool_prepare(pool, packed.size, future, &memory);
    if (error)
        return error;
    memcpy(memory, packed.bytes, packed.size);
    error = pool_commit_host(future, 0);
    if (error)
        pool_abandon(future);
    return error;
}

/* Waits for a job and prints what it returned. */
static int print_result(const struct pool_future *future)
{
    const void *bytes = "";
    const char *data;
    size_t size = 0, count;
    lua_Integer integer;
    lua_Number number;
    int error;
    do
        error = pool_future_wait(future, POOL_FOREVER);
    while (error == -EINTR);
    if (error == 0)
        error = pool_future_result(future, &bytes, &size);

    const char *at = bytes, *end = at + size;
    for (char type; (type = unpack(&at, end, &data, &count)) != 0;) {
        if (type == 'i') {
            memcpy(&integer, data, sizeof integer);
            printf(" %lld", (long long)integer);
        } else if (type == 'n') {
            memcpy(&number, data, sizeof number);
            printf(" %.14g", number);
        } else if (type == 'b') {
            printf(" %s", *data ? "true" : "false");
        } else {
            printf(" %.*s", type == 's' ? (int)count : 3, type == 's' ? data : "nil");
        }
    }
    printf("%s\n", error == -EREMOTEIO ? "" : error ? strerror(-error) : "");
    pool_future_release(future);
    return error;
}

/* Errors of Lua are results, and a worker that ends costs the job that it ran: all is as it should
 * be if the outcomes are these. */
static int show(struct pool *pool)
{
    static const struct {
        const char *function;
        int wanted;
    } calls[] = {{"count", 0},
                 {"count", 0},
                 {"count", 0},
                 {"fail", -EREMOTEIO},
                 {"nothing", -EREMOTEIO},
                 {"crash", -EOWNERDEAD},
                 {"count", 0}};
    struct pool_future futures[sizeof calls / sizeof *calls];
    int wrong = 0;
    for (int i = 0; i < (int)(sizeof calls / sizeof *calls); i++) {
        int error = call(pool, calls[i].function, 50000 + i, &futures[i]);
        if (error)
            return error;
    }
    for (int i = 0; i < (int)(sizeof calls / sizeof *calls); i++) {
        printf("%s(%d):", calls[i].function, 50000 + i);
        wrong |= print_result(&futures[i]) != calls[i].wanted;
    }
    return wrong ? -EPROTO : 0;
}

int main(void)
{
    struct pool *pool = NULL;
    int error = make_pool(&pool);
    if (error == 0)
        error = show(pool);
    if (error)
        fprintf(stderr, "lua_host: %s\n", strerror(-error));
    pool_destroy(pool);
    return error != 0;
}
