#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <sys/wait.h>
#include <unistd.h>

#include "check.hpp"

/* A pool that is gone has left no process. */
static void check_children()
{
    siginfo_t info;
    CHECK(waitid(P_ALL, 0, &info, WEXITED | WNOHANG | WNOWAIT) == -1 && errno == ECHILD);
}

int main(int argc, char **argv)
{
    int run = 0, failed = 0;
    for (const test_case &test : all_tests()) {
        if (argc > 1 && std::strstr(test.name, argv[1]) == nullptr)
            continue;
        failures = 0;
        run++;
        alarm(60);
        try {
            test.run();
        } catch (const std::exception &exception) {
            std::fprintf(stderr, "    threw: %s\n", exception.what());
            failures++;
        }
        check_children();
        std::printf("%s %s\n", failures ? "FAILED" : "passed", test.name);
        std::fflush(stdout);
        failed += failures != 0;
    }
    std::printf("%d tests, %d failed\n", run, failed);
    return run > 0 && failed == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
