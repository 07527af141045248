/* What a pickle names: the functions and classes in it that are known by module and name.
 *
 * Read from the operations of protocol 5, as the pickler of the standard library writes them: two
 * strings, each new or by its place in the memo, and STACK_GLOBAL. Whatever is not known here, or
 * is put together in another way, is answered with "can't say". The operations and what follows
 * each of them: pickletools.py. */
#include "core.h"

/* What follows an operation: nothing, or n bytes (ALONE + n), or n bytes that say how many follow
 * them (COUNTED + n). */
enum { UNKNOWN, ALONE, COUNTED = 0x40 };

static const uint8_t operands[256] = {
    ['('] = ALONE,        ['.'] = ALONE,        ['0'] = ALONE,        ['1'] = ALONE,
    ['2'] = ALONE,        ['N'] = ALONE,        [')'] = ALONE,        ['t'] = ALONE,
    [']'] = ALONE,        ['a'] = ALONE,        ['e'] = ALONE,        ['l'] = ALONE,
    ['}'] = ALONE,        ['d'] = ALONE,        ['s'] = ALONE,        ['u'] = ALONE,
    ['R'] = ALONE,        ['b'] = ALONE,        ['o'] = ALONE,        [0x81] = ALONE,
    [0x85] = ALONE,       [0x86] = ALONE,       [0x87] = ALONE,       [0x88] = ALONE,
    [0x89] = ALONE,       [0x8f] = ALONE,       [0x90] = ALONE,       [0x91] = ALONE,
    [0x92] = ALONE,       [0x93] = ALONE,       [0x94] = ALONE,       [0x97] = ALONE,
    [0x98] = ALONE,       ['K'] = ALONE + 1,    ['h'] = ALONE + 1,    [0x80] = ALONE + 1,
    ['M'] = ALONE + 2,    ['J'] = ALONE + 4,    ['j'] = ALONE + 4,    ['G'] = ALONE + 8,
    [0x95] = ALONE + 8,   ['C'] = COUNTED + 1,  [0x8a] = COUNTED + 1, [0x8c] = COUNTED + 1,
    ['B'] = COUNTED + 4,  ['X'] = COUNTED + 4,  [0x8b] = COUNTED + 4, [0x8d] = COUNTED + 8,
    [0x8e] = COUNTED + 8, [0x96] = COUNTED + 8,
};

/* A string in the pickle: where its text is. `data` is NULL for what is no string. */
typedef struct {
    const uint8_t *data;
    size_t size;
} Text;

typedef struct {
    const uint8_t *next, *end;
    Text under, top; /* what was pushed last but one, and last */
    Text *memo;
    size_t count, room;
} Scan;

static uint64_t little_endian(const uint8_t *data, unsigned bytes)
{
    uint64_t value = 0;
    while (bytes > 0)
        value = value << 8 | data[--bytes];
    return value;
}

static void push(Scan *scan, Text text)
{
    scan->under = scan->top;
    scan->top = text;
}

static bool memoize(Scan *scan)
{
    if (scan->count == scan->room) {
        size_t room = scan->room ? scan->room * 2 : 64;
        Text *memo = PyMem_Realloc(scan->memo, room * sizeof *memo);
        if (!memo)
            return false;
        scan->memo = memo;
        scan->room = room;
    }
    scan->memo[scan->count++] = scan->top;
    return true;
}

/* (module, name) to the set. False: can't say, perhaps with an exception. */
static bool add_global(const Scan *scan, PyObject *names)
{
    if (!scan->under.data || !scan->top.data)
        return false;
    PyObject *pair = Py_BuildValue("s#s#", scan->under.data, (Py_ssize_t)scan->under.size,
                                   scan->top.data, (Py_ssize_t)scan->top.size);
    bool added = pair && PySet_Add(names, pair) == 0;
    Py_XDECREF(pair);
    return added;
}

/* One operation. False: can't say. */
static bool step(Scan *scan, PyObject *names)
{
    uint8_t operation = *scan->next++;
    unsigned kind = operands[operation], bytes = kind - (kind < COUNTED ? ALONE : COUNTED);
    uint64_t left = (uint64_t)(scan->end - scan->next), number, length;
    if (kind == UNKNOWN || left < bytes)
        return false;
    number = length = little_endian(scan->next, bytes);
    if (kind < COUNTED) {
        length = bytes;
    } else {
        scan->next += bytes;
        left -= bytes;
    }
    if (length > left)
        return false;
    switch (operation) {
    case 0x80: /* PROTO */
    case 0x95: /* FRAME */
        break;
    case 0x8c: /* SHORT_BINUNICODE */
    case 'X':  /* BINUNICODE */
        push(scan, (Text){scan->next, (size_t)length});
        break;
    case 'h': /* BINGET */
    case 'j': /* LONG_BINGET */
        if (number >= scan->count)
            return false;
        push(scan, scan->memo[number]);
        break;
    case 0x94: /* MEMOIZE */
        return memoize(scan);
    case 0x93: /* STACK_GLOBAL */
        if (!add_global(scan, names))
            return false;
        /* fall through */
    default:
        scan->under = scan->top = (Text){NULL, 0};
    }
    scan->next += length;
    return true;
}

PyObject *globals_in(PyObject *pickled)
{
    const uint8_t *data = (const uint8_t *)PyBytes_AS_STRING(pickled);
    Scan scan = {.next = data, .end = data + PyBytes_GET_SIZE(pickled)};
    PyObject *names = PySet_New(NULL);
    bool sound = names;
    while (sound && scan.next < scan.end)
        sound = step(&scan, names);
    PyMem_Free(scan.memo);
    if (sound)
        return names;
    Py_XDECREF(names);
    if (PyErr_ExceptionMatches(PyExc_UnicodeDecodeError)) /* no name of anything */
        PyErr_Clear();
    return PyErr_Occurred() ? NULL : Py_NewRef(Py_None);
}
