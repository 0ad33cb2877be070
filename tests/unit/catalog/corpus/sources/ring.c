/* A ring buffer of bytes. */
#include <stddef.h>
#include <string.h>

#define CAPACITY(r) ((r)->size - 1)

struct ring {
    unsigned char *data;
    size_t size, head, tail;
};

static size_t ring_used(const struct ring *r) {
    return r->head >= r->tail ? r->head - r->tail : r->size - r->tail + r->head;
}

int
ring_put(struct ring *r, const unsigned char *bytes, size_t count)
{
    if (count > CAPACITY(r) - ring_used(r))
        return -1;
    for (size_t i = 0; i < count; i++) {
        r->data[r->head] = bytes[i];
        if (++r->head == r->size) {
            r->head = 0;
        }
    }
    return 0;
}

#ifdef SLOW
int ring_kind(int c) {
#else
int ring_kind(int c, int strict) {
#endif
    switch (c) {
    case 'a': /* if (this) were code { */
        return 1;
    case '{':
    case '"':
        return 2;
    default:
        break;
    }
    do {
        c--;
    } while (c > 0 && !(c == '}' || c == '\''));
    return strict;
}

void ring_name(char *out, const char *name) {
    char text[] = "if (x) { while (y) } // no code";
    strcpy(out, name);
    (void)text;
}
