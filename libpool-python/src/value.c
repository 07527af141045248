/* Results, as the host reads them. */
#include "format.h"

#include <errno.h>
#include <string.h>

static struct view view_of(const struct pool_python_value *value)
{
    struct view view = {.base = value->data, .size = value->size};
    struct preamble preamble;
    size_t root;

    /* Read anew each time, since it may have been overwritten. If so, nothing lies apart. */
    if (format_open(&view, FORMAT_RESULT, value->data, value->size, &preamble, &root) < 0)
        view.area = view.size;
    return view;
}

static int read_value(const struct pool_python_value *value, struct view *view, struct node *node)
{
    if (!value->data)
        return -EINVAL;
    *view = view_of(value);
    return format_read(view, value->offset, view->size, node);
}

static void set_value(struct pool_python_value *out, const struct pool_python_value *container,
                      const struct node *node)
{
    *out = *container;
    out->offset = node->at;
}

/* ---- Results -------------------------------------------------------------------------------- */

/* The root of a result, whose job ended with `status`. */
static int open_result(const struct pool_future *future, const void *data, size_t size,
                       struct pool_python_value *value)
{
    struct preamble preamble;
    struct view view;
    struct node node;
    size_t root;
    int error = format_open(&view, FORMAT_RESULT, data, size, &preamble, &root);

    if (error)
        return error;
    *value = (struct pool_python_value){future->pool, data, size, root};
    return format_read(&view, root, view.size, &node);
}

int pool_python_result(const struct pool_future *future, struct pool_python_value *value)
{
    const void *data = NULL;
    size_t size = 0;
    int status = pool_future_result(future, &data, &size);

    memset(value, 0, sizeof *value);
    return status ? status : open_result(future, data, size, value);
}

int pool_python_exception(const struct pool_future *future, struct pool_python_exception *exception)
{
    struct pool_python_value value, part;
    const char **texts[3] = {&exception->type, &exception->message, &exception->traceback};
    const void *data = NULL;
    size_t size = 0;

    if (exception->size < sizeof *exception)
        return -EINVAL;
    int status = pool_future_result(future, &data, &size);
    if (status == 0)
        return -ENOENT;
    if (status != -EREMOTEIO)
        return status;
    int error = open_result(future, data, size, &value);
    for (size_t i = 0; error == 0 && i < 3; i++) {
        error = pool_python_get_item(&value, i, &part);
        if (error == 0)
            error = pool_python_get_string(&part, texts[i], NULL);
    }
    return error == -ERANGE || error == -EINVAL ? -EBADMSG : error;
}

/* ---- Values --------------------------------------------------------------------------------- */

int pool_python_kind(const struct pool_python_value *value)
{
    struct view view;
    struct node node;
    int error = read_value(value, &view, &node);

    if (error)
        return error;
    switch (node.tag) {
    case TAG_NONE:
        return POOL_PYTHON_KIND_NONE;
    case TAG_BOOL:
        return POOL_PYTHON_KIND_BOOL;
    case TAG_SMALL:
    case TAG_INT:
        return POOL_PYTHON_KIND_INT;
    case TAG_DOUBLE:
        return POOL_PYTHON_KIND_DOUBLE;
    case TAG_STRING:
    case TAG_STRING_APART:
        return POOL_PYTHON_KIND_STRING;
    case TAG_BYTES:
    case TAG_BYTES_APART:
        return POOL_PYTHON_KIND_BYTES;
    case TAG_LIST:
        return POOL_PYTHON_KIND_LIST;
    case TAG_TUPLE:
        return POOL_PYTHON_KIND_TUPLE;
    case TAG_DICT:
        return POOL_PYTHON_KIND_DICT;
    case TAG_ARRAY:
        return POOL_PYTHON_KIND_ARRAY;
    case TAG_KEYWORD:
    case TAG_CALL:
        break;
    }
    return -EBADMSG;
}

/* Reads a value that has one of two tags. */
static int read_as(const struct pool_python_value *value, enum format_tag tag,
                   enum format_tag other, struct view *view, struct node *node)
{
    int error = read_value(value, view, node);

    return error ? error : node->tag == tag || node->tag == other ? 0 : -EINVAL;
}

int pool_python_get_bool(const struct pool_python_value *value, bool *out)
{
    struct view view;
    struct node node;
    int error = read_as(value, TAG_BOOL, TAG_BOOL, &view, &node);

    if (error == 0)
        *out = node.extra != 0;
    return error;
}

int pool_python_get_int64(const struct pool_python_value *value, int64_t *out)
{
    struct view view;
    struct node node;
    int error = read_as(value, TAG_SMALL, TAG_INT, &view, &node);

    if (error == 0)
        *out = (int64_t)node.number;
    return error;
}

int pool_python_get_double(const struct pool_python_value *value, double *out)
{
    struct view view;
    struct node node;
    int error = read_value(value, &view, &node);

    if (error)
        return error;
    if (node.tag == TAG_DOUBLE)
        memcpy(out, &node.number, sizeof *out);
    else if (node.tag == TAG_SMALL || node.tag == TAG_INT)
        *out = (double)(int64_t)node.number;
    else
        return -EINVAL;
    return 0;
}

int pool_python_get_string(const struct pool_python_value *value, const char **text, size_t *size)
{
    struct view view;
    struct node node;
    int error = read_as(value, TAG_STRING, TAG_STRING_APART, &view, &node);

    if (error)
        return error;
    *text = node.data;
    if (size)
        *size = node.size;
    return 0;
}

int pool_python_get_bytes(const struct pool_python_value *value, const void **data, size_t *size)
{
    struct view view;
    struct node node;
    int error = read_as(value, TAG_BYTES, TAG_BYTES_APART, &view, &node);

    if (error)
        return error;
    *data = node.data;
    *size = node.size;
    return 0;
}

int pool_python_get_array(const struct pool_python_value *value, struct pool_python_array *array)
{
    struct view view;
    struct node node;
    size_t size, room;
    void *memory;

    if (array->size < sizeof *array)
        return -EINVAL;
    int error = read_as(value, TAG_ARRAY, TAG_ARRAY, &view, &node);
    if (error == 0)
        error = format_array(&view, &node, array, &size);
    if (error || array->reference == 0)
        return error;
    error = pool_lookup(value->pool, array->reference, &memory, &room);
    if (error)
        return error;
    if (array->offset > room || size > room - array->offset)
        return -EBADMSG;
    array->data = (unsigned char *)memory + array->offset;
    return 0;
}

/* ---- Containers ----------------------------------------------------------------------------- */

int64_t pool_python_length(const struct pool_python_value *value)
{
    struct view view;
    struct node node;
    int error = read_value(value, &view, &node);

    if (error)
        return error;
    return node.tag == TAG_LIST || node.tag == TAG_TUPLE || node.tag == TAG_DICT
               ? (int64_t)node.extra
               : -EINVAL;
}

int pool_python_get_item(const struct pool_python_value *list, size_t index,
                         struct pool_python_value *item)
{
    struct view view;
    struct node node, found;
    int error = read_as(list, TAG_LIST, TAG_TUPLE, &view, &node);

    if (error == 0 && index >= node.extra)
        error = -ERANGE;
    if (error == 0)
        error = format_item(&view, &node, index, &found);
    if (error == 0)
        set_value(item, list, &found);
    return error;
}

/* Entry `index` of a dict, which is known to have it. */
static int read_entry(const struct view *view, const struct node *dict, size_t index,
                      struct node *key, struct node *item)
{
    int error = format_item(view, dict, index, key);

    return error ? error : format_read(view, key->next, dict->table, item);
}

int pool_python_get_entry(const struct pool_python_value *dict, size_t index,
                          struct pool_python_value *key, struct pool_python_value *item)
{
    struct view view;
    struct node node, found_key, found_item;
    struct pool_python_value container = *dict; /* which `key` or `item` may be */
    int error = read_as(dict, TAG_DICT, TAG_DICT, &view, &node);

    if (error == 0 && index >= node.extra)
        error = -ERANGE;
    if (error == 0)
        error = read_entry(&view, &node, index, &found_key, &found_item);
    if (error)
        return error;
    if (key)
        set_value(key, &container, &found_key);
    if (item)
        set_value(item, &container, &found_item);
    return 0;
}

int pool_python_find(const struct pool_python_value *dict, const char *key,
                     struct pool_python_value *item)
{
    size_t size = strlen(key);
    struct view view;
    struct node node, found_key, found_item;
    int error = read_as(dict, TAG_DICT, TAG_DICT, &view, &node);

    for (size_t i = 0; error == 0 && i < node.extra; i++) {
        error = read_entry(&view, &node, i, &found_key, &found_item);
        if (error == 0 && (found_key.tag == TAG_STRING || found_key.tag == TAG_STRING_APART) &&
            found_key.size == size && memcmp(found_key.data, key, size) == 0) {
            set_value(item, dict, &found_item);
            return 0;
        }
    }
    return error ? error : -ENOENT;
}
