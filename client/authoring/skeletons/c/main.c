/* @NAME@: counts words. An agent in C is a command: AF_MAIN reads its input from stdin and writes its output to stdout. */
#include "agentfactory.h"

#include <ctype.h>

static char *process(const char *input) {
    const char *setting = af_member(af_config(), "words_max");
    long words_max = setting ? strtol(setting, NULL, 10) : 100, words = 0;
    for (const char *at = input; *at && words < words_max; words++) {
        while (isspace((unsigned char)*at)) at++;
        if (!*at) break;
        while (*at && !isspace((unsigned char)*at)) at++;
    }
    af_log("info", af_format("counted words=%ld", words));
    return af_format("{\"words\":%ld}", words);
}

AF_MAIN(process)
