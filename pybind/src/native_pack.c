#include "native_pack.h"

static const char *const type_names[NATIVE_TYPES] = {
    "void",  "bool",   "char",  "int8",   "uint8", "int16",  "uint16",
    "int32", "uint32", "int64", "uint64", "float", "double", "pointer",
};

/* ---- Head ------------------------------------------------------------------------------------ */

static uint32_t count_of(const Pack *pack)
{
    return ((const struct native_header *)(const void *)pack->head)->count;
}

int pack_begin(Pack *pack, NativeFunction *function, enum native_form form, size_t count)
{
    pack->function = function;
    pack->head = NULL;
    pack->pieces = NULL;
    pack->content = NULL;
    pack->count = pack->room = 0;
    if (count > UINT32_MAX) {
        PyErr_Format(PyExc_OverflowError, "%zu calls are too many for one job", count);
        return -1;
    }
    size_t size = sizeof(struct native_header) + native_align(function->arguments, 8);
    for (unsigned i = 0; i < function->arguments; i++) {
        pack->columns[i] = size;
        size += native_align(native_size(function->types[i]) * count, 8);
    }
    pack->head = size <= sizeof pack->small ? pack->small : PyMem_Malloc(size);
    if (!pack->head) {
        PyErr_NoMemory();
        return -1;
    }
    memset(pack->head, 0, size);
    const struct native_header header = {.count = (uint32_t)count,
                                         .form = (uint8_t)form,
                                         .result = function->result,
                                         .arguments = function->arguments};
    memcpy(pack->head, &header, sizeof header);
    memcpy(pack->head + sizeof header, function->types, function->arguments);
    pack->head_size = pack->size = size;
    return 0;
}

void pack_end(Pack *pack)
{
    for (Py_ssize_t i = 0; i < pack->count; i++)
        PyBuffer_Release(&pack->pieces[i].view);
    PyMem_Free(pack->pieces);
    if (pack->head != pack->small)
        PyMem_Free(pack->head);
    Py_CLEAR(pack->content);
}

PyObject *pack_content(const Pack *pack)
{
    if (pack->content)
        return PyList_AsTuple(pack->content);
    return Py_NewRef((PyObject *)pack->function);
}

/* Adds a view of the buffer that a result goes to. Steals. */
static int add_destination(Pack *pack, PyObject *view)
{
    int added = -1;
    if (view && !pack->content) {
        pack->content = PyList_New(1);
        if (pack->content)
            PyList_SET_ITEM(pack->content, 0, Py_NewRef((PyObject *)pack->function));
    }
    if (view && pack->content)
        added = PyList_Append(pack->content, view);
    Py_XDECREF(view);
    return added;
}

/* ---- Scalars --------------------------------------------------------------------------------- */

static int bad_type(const Pack *pack, unsigned index, const char *wanted, PyObject *value)
{
    PyErr_Format(PyExc_TypeError, "argument %u of %U must be %s, not %.100s", index + 1,
                 pack->function->name, wanted, Py_TYPE(value)->tp_name);
    return -1;
}

static int out_of_range(const Pack *pack, unsigned index, PyObject *value)
{
    PyErr_Clear();
    PyObject *text = errors_repr(value);
    if (text)
        PyErr_Format(PyExc_OverflowError, "argument %u of %U: %U does not fit in %s", index + 1,
                     pack->function->name, text, type_names[pack->function->types[index]]);
    else
        PyErr_NoMemory();
    Py_XDECREF(text);
    return -1;
}

static int put_integer(const Pack *pack, unsigned index, PyObject *value, uint8_t *to)
{
    enum native_type type = pack->function->types[index];
    size_t size = native_size(type);
    PyObject *number = PyNumber_Index(value);
    if (!number) {
        if (!PyErr_ExceptionMatches(PyExc_TypeError))
            return -1;
        PyErr_Clear();
        return bad_type(pack, index, "an integer", value);
    }
    int overflow = 0;
    uint64_t bits = 0;
    if (type == NATIVE_UINT64) {
        bits = PyLong_AsUnsignedLongLong(number);
        overflow = bits == (uint64_t)-1 && PyErr_Occurred();
    } else {
        int64_t integer = PyLong_AsLongLongAndOverflow(number, &overflow);
        bool is_signed = type == NATIVE_INT8 || type == NATIVE_INT16 || type == NATIVE_INT32 ||
                         type == NATIVE_INT64;
        unsigned width = (unsigned)size * 8 - is_signed;
        if (width < 63 && (integer >> width) != (is_signed && integer < 0 ? -1 : 0))
            overflow = 1;
        bits = (uint64_t)integer;
    }
    Py_DECREF(number);
    if (overflow)
        return out_of_range(pack, index, value);
    memcpy(to, &bits, size); /* little-endian, as all machines that are supported */
    return 0;
}

static int put_float(const Pack *pack, unsigned index, PyObject *value, uint8_t *to)
{
    double number = PyFloat_AsDouble(value);
    if (number == -1.0 && PyErr_Occurred()) {
        if (!PyErr_ExceptionMatches(PyExc_TypeError))
            return -1;
        PyErr_Clear();
        return bad_type(pack, index, "a real number", value);
    }
    if (pack->function->types[index] == NATIVE_DOUBLE)
        memcpy(to, &number, sizeof number);
    else
        memcpy(to, &(float){(float)number}, sizeof(float));
    return 0;
}

static int put_char(const Pack *pack, unsigned index, PyObject *value, uint8_t *to)
{
    if (PyBytes_Check(value) && PyBytes_GET_SIZE(value) == 1) {
        *to = (uint8_t)PyBytes_AS_STRING(value)[0];
        return 0;
    }
    if (!PyLong_Check(value))
        return bad_type(pack, index, "a bytes object of length 1 or an int", value);
    int overflow;
    long number = PyLong_AsLongAndOverflow(value, &overflow);
    if (overflow || number < 0 || number > UINT8_MAX)
        return out_of_range(pack, index, value);
    *to = (uint8_t)number;
    return 0;
}

static int put_scalar(const Pack *pack, unsigned index, PyObject *value, uint8_t *to)
{
    int truth;
    switch (pack->function->types[index]) {
    case NATIVE_BOOL:
        if ((truth = PyObject_IsTrue(value)) < 0)
            return -1;
        *to = (uint8_t)truth;
        return 0;
    case NATIVE_CHAR:
        return put_char(pack, index, value, to);
    case NATIVE_FLOAT:
    case NATIVE_DOUBLE:
        return put_float(pack, index, value, to);
    default:
        return put_integer(pack, index, value, to);
    }
}

/* As put_scalar(), also for an instance of c_int and the like. */
static int put_any_scalar(const Pack *pack, unsigned index, PyObject *value, uint8_t *to)
{
    Core *core = pack->function->core;
    if (PyLong_Check(value) || PyFloat_Check(value))
        return put_scalar(pack, index, value, to);
    PyObject *simple = core_late(&core->simple_data, "_ctypes", "_SimpleCData");
    int is_simple = simple ? PyObject_IsInstance(value, simple) : -1;
    if (is_simple < 0)
        return -1;
    if (!is_simple)
        return put_scalar(pack, index, value, to);
    PyObject *inner = PyObject_GetAttrString(value, "value");
    int done = inner ? put_scalar(pack, index, inner, to) : -1;
    Py_XDECREF(inner);
    return done;
}

/* ---- Buffers --------------------------------------------------------------------------------- */

enum item_kind { ITEM_OTHER, ITEM_SIGNED, ITEM_UNSIGNED, ITEM_FLOAT, ITEM_BOOL, ITEM_CHAR };

/* What the items of a buffer are. */
static enum item_kind kind_of_items(const Py_buffer *view)
{
    const char *format = view->format ? view->format : "B";
    if (*format == '@' || *format == '=' || *format == '<')
        format++;
    if (*format && format[1])
        return ITEM_OTHER;
    if (strchr("bhilqn", *format))
        return ITEM_SIGNED;
    if (strchr("BHILQN", *format))
        return ITEM_UNSIGNED;
    if (*format == 'f' || *format == 'd')
        return ITEM_FLOAT;
    return *format == '?' ? ITEM_BOOL : *format == 'c' ? ITEM_CHAR : ITEM_OTHER;
}

static enum item_kind kind_of_type(enum native_type type)
{
    switch (type) {
    case NATIVE_BOOL:
        return ITEM_BOOL;
    case NATIVE_CHAR:
        return ITEM_CHAR;
    case NATIVE_FLOAT:
    case NATIVE_DOUBLE:
        return ITEM_FLOAT;
    case NATIVE_INT8:
    case NATIVE_INT16:
    case NATIVE_INT32:
    case NATIVE_INT64:
        return ITEM_SIGNED;
    default:
        return ITEM_UNSIGNED;
    }
}

static bool is_integer(enum item_kind kind)
{
    return kind == ITEM_SIGNED || kind == ITEM_UNSIGNED;
}

/* Whether a pointer to `element` may point to these. Bytes may be anything, and an array of complex
 * numbers is one of real ones. */
static bool may_point_to(const Py_buffer *view, enum native_type element)
{
    enum item_kind kind = kind_of_items(view);
    if (element == NATIVE_VOID || kind == ITEM_CHAR || (is_integer(kind) && view->itemsize == 1))
        return true;
    if (kind == ITEM_OTHER && view->format[0] == 'Z')
        return kind_of_type(element) == ITEM_FLOAT &&
               (size_t)view->itemsize == 2 * native_size(element);
    if ((size_t)view->itemsize != native_size(element))
        return false;
    return kind == kind_of_type(element) || (is_integer(kind) && is_integer(kind_of_type(element)));
}

static int wrong_items(const Pack *pack, unsigned index, enum native_type type,
                       const Py_buffer *view)
{
    PyErr_Format(PyExc_TypeError,
                 "argument %u of %U must be a buffer of %s, and this one has items of format %s",
                 index + 1, pack->function->name, type_names[type],
                 view->format ? view->format : "B");
    return -1;
}

static Piece *new_piece(Pack *pack)
{
    if (pack->count == pack->room) {
        Py_ssize_t room = pack->room ? 2 * pack->room : 4;
        Piece *more = PyMem_Resize(pack->pieces, Piece, room);
        if (!more) {
            PyErr_NoMemory();
            return NULL;
        }
        pack->pieces = more;
        pack->room = room;
    }
    return &pack->pieces[pack->count];
}

/* The target of an Out or InOut, or NULL without an exception for another object. */
static PyObject *target_of(Core *core, PyObject *value, enum native_way *way)
{
    PyObject *out = core_late(&core->native_out, "libpool._native", "Out");
    PyObject *in_out = out ? core_late(&core->native_in_out, "libpool._native", "InOut") : NULL;
    int is_in_out = in_out ? PyObject_IsInstance(value, in_out) : -1;
    int is_out = is_in_out == 0 ? PyObject_IsInstance(value, out) : is_in_out;
    *way = is_in_out > 0 ? NATIVE_INOUT : is_out > 0 ? NATIVE_OUT : NATIVE_IN;
    return is_out > 0 ? PyObject_GetAttrString(value, "buffer") : NULL;
}

static int no_buffer(const Pack *pack, unsigned index, PyObject *value)
{
    if (!PyErr_ExceptionMatches(PyExc_TypeError)) {
        errors_note("argument %u of %U", index + 1, pack->function->name);
        return -1;
    }
    PyErr_Clear();
    const char *wanted = "a buffer, Out, InOut or None";
    if (PyLong_Check(value))
        wanted = "a buffer, Out, InOut or None: an address means nothing in another process, hence";
    else if (PyUnicode_Check(value))
        wanted = "a buffer, Out, InOut or None (encode the text to bytes)";
    else if (strstr(Py_TYPE(value)->tp_name, "CArgObject"))
        wanted = "a buffer, Out, InOut or None (InOut(x) in the place of byref(x))";
    return bad_type(pack, index, wanted, value);
}

/* A pointer: takes hold of the buffer. */
static int put_buffer(Pack *pack, unsigned index, PyObject *value, size_t slot)
{
    enum native_way way;
    if (value == Py_None)
        return 0; /* NATIVE_NULL is 0 */
    PyObject *target = target_of(pack->function->core, value, &way);
    if (!target && PyErr_Occurred())
        return -1;
    PyObject *from = target ? target : value;
    Piece *piece = new_piece(pack);
    int flags = PyBUF_FORMAT | PyBUF_ANY_CONTIGUOUS | (target ? PyBUF_WRITABLE : 0);
    if (!piece || PyObject_GetBuffer(from, &piece->view, flags) < 0) {
        Py_XDECREF(target);
        return piece ? no_buffer(pack, index, value) : -1;
    }
    /* A string of C ends with a zero byte, as every bytes object does. */
    size_t size = (size_t)piece->view.len + (PyBytes_Check(from) ? 1 : 0);
    const struct native_buffer buffer = {.way = way, .size = size};
    memcpy(pack->head + slot, &buffer, sizeof buffer);
    int done = target ? add_destination(pack, PyMemoryView_FromObject(target)) : 0;
    Py_XDECREF(target);
    enum native_type element = pack->function->elements[index];
    if (done == 0 && !may_point_to(&piece->view, element))
        done = wrong_items(pack, index, element, &piece->view);
    piece->slot = slot;
    if (done < 0 || way == NATIVE_OUT) {
        PyBuffer_Release(&piece->view);
        return done;
    }
    pack->count++;
    pack->size += size + native_alignment(size) - 1;
    return 0;
}

int pack_call(Pack *pack, size_t row, PyObject *const *values, Py_ssize_t count)
{
    const NativeFunction *function = pack->function;
    if (count != function->arguments) {
        PyErr_Format(PyExc_TypeError, "%U takes %d argument%s, and %zd %s given", function->name,
                     function->arguments, function->arguments == 1 ? "" : "s", count,
                     count == 1 ? "was" : "were");
        return -1;
    }
    for (unsigned i = 0; i < function->arguments; i++) {
        size_t slot = pack->columns[i] + row * native_size(function->types[i]);
        if (function->types[i] == NATIVE_POINTER
                ? put_buffer(pack, i, values[i], slot) < 0
                : put_any_scalar(pack, i, values[i], pack->head + slot) < 0)
            return -1;
    }
    return 0;
}

/* ---- Columns --------------------------------------------------------------------------------- */

static bool is_array_of(const Py_buffer *view, enum native_type type)
{
    enum item_kind kind = kind_of_items(view), wanted = kind_of_type(type);
    if (view->ndim != 1 || (size_t)view->itemsize != native_size(type))
        return false;
    return kind == wanted || (wanted == ITEM_CHAR && kind == ITEM_UNSIGNED);
}

static int repeat_scalar(Pack *pack, unsigned index, PyObject *value)
{
    size_t size = native_size(pack->function->types[index]);
    uint8_t one[8];
    if (put_any_scalar(pack, index, value, one) < 0)
        return -1;
    for (size_t i = 0; i < count_of(pack); i++)
        memcpy(pack->head + pack->columns[index] + i * size, one, size);
    return 0;
}

int pack_column(Pack *pack, unsigned index, PyObject *values, Py_ssize_t start)
{
    enum native_type type = pack->function->types[index];
    Py_ssize_t count = count_of(pack);
    Py_buffer view;
    if (type == NATIVE_POINTER) {
        PyErr_Format(PyExc_TypeError, "argument %u of %U is a pointer; map() takes scalars only",
                     index + 1, pack->function->name);
        return -1;
    }
    if (PyBytes_CheckExact(values) ? PyBytes_GET_SIZE(values) == 1 : !PyObject_CheckBuffer(values))
        return repeat_scalar(pack, index, values);
    if (PyObject_GetBuffer(values, &view, PyBUF_FORMAT | PyBUF_CONTIG_RO) < 0)
        return no_buffer(pack, index, values);
    if (view.ndim == 0) { /* a c_double, or a scalar of NumPy */
        PyBuffer_Release(&view);
        return repeat_scalar(pack, index, values);
    }
    int done = 0;
    if (!is_array_of(&view, type)) {
        done = wrong_items(pack, index, type, &view);
    } else if (start < 0 || start > view.shape[0] - count) {
        PyErr_Format(PyExc_ValueError, "argument %u of %U: the buffer has %zd items, not %zd",
                     index + 1, pack->function->name, view.shape[0], start + count);
        done = -1;
    } else {
        const uint8_t *from = (const uint8_t *)view.buf + start * view.itemsize;
        codec_copy(pack->head + pack->columns[index], from, (size_t)(count * view.itemsize), true);
    }
    PyBuffer_Release(&view);
    return done;
}

int pack_destination(Pack *pack, PyObject *buffer, Py_ssize_t start)
{
    Py_buffer view;
    Py_ssize_t count = count_of(pack);
    enum native_type type = pack->function->result;
    if (PyObject_GetBuffer(buffer, &view, PyBUF_FORMAT | PyBUF_CONTIG) < 0)
        return -1;
    bool fits = is_array_of(&view, type) && start >= 0 && start <= view.shape[0] - count;
    PyBuffer_Release(&view);
    if (!fits) {
        PyErr_Format(PyExc_TypeError, "out must be a buffer of at least %zd items of type %s",
                     start + count, type_names[type]);
        return -1;
    }
    PyObject *all = PyMemoryView_FromObject(buffer);
    PyObject *part = all ? PySequence_GetSlice(all, start, start + count) : NULL;
    Py_XDECREF(all);
    return add_destination(pack, part);
}

/* ---- Writing --------------------------------------------------------------------------------- */

void pack_write(Pack *pack, uint64_t function, uint8_t *memory)
{
    uintptr_t at = (uintptr_t)memory + pack->head_size;
    memcpy(pack->head, &function, sizeof function); /* the first field of the header */
    codec_copy(memory, pack->head, pack->head_size, true);
    for (Py_ssize_t i = 0; i < pack->count; i++) {
        const Piece *piece = &pack->pieces[i];
        struct native_buffer buffer;
        memcpy(&buffer, pack->head + piece->slot, sizeof buffer);
        at = native_align(at, native_alignment(buffer.size));
        buffer.offset = at - (uintptr_t)memory;
        memcpy(memory + piece->slot, &buffer, sizeof buffer);
        codec_copy((void *)at, piece->view.buf, (size_t)piece->view.len, true);
        if (buffer.size > (size_t)piece->view.len)
            ((uint8_t *)at)[piece->view.len] = 0;
        at += buffer.size;
    }
}
