/* See CUnit.h. For one source file, harness.c: the variables are that file's. */
#ifndef CUNIT_STAND_IN_BASIC_H
#define CUNIT_STAND_IN_BASIC_H

#include <setjmp.h>
#include <stdio.h>

#include "CUnit.h"

enum { CU_BRM_VERBOSE, CUE_SUCCESS = 0, CUNIT_MOST = 100 };

typedef struct CU_Test {
    const char *pName;
    void (*run)(void);
} *CU_pTest;

typedef struct CU_Suite {
    const char *name;
    unsigned count;
    struct CU_Test tests[CUNIT_MOST];
} *CU_pSuite;

static struct CU_Suite cunit_suite;
static CU_pTest cunit_current;
static jmp_buf cunit_end_of_test;
static unsigned cunit_failures, cunit_run;

static inline int CU_initialize_registry(void)
{
    return CUE_SUCCESS;
}

static inline CU_pSuite CU_add_suite(const char *name, int (*begin)(void), int (*end)(void))
{
    (void)begin;
    (void)end;
    cunit_suite.name = name;
    return &cunit_suite;
}

/* NULL where there are too many, which run_tests() of the harness would not notice. */
static inline CU_pTest CU_add_test(CU_pSuite suite, const char *name, void (*run)(void))
{
    if (suite->count == CUNIT_MOST) {
        cunit_failures++;
        fprintf(stderr, "more than %d tests\n", (int)CUNIT_MOST);
        return NULL;
    }
    suite->tests[suite->count] = (struct CU_Test){name, run};
    return &suite->tests[suite->count++];
}

static inline void CU_basic_set_mode(int mode)
{
    (void)mode;
}

static inline CU_pTest CU_get_current_test(void)
{
    return cunit_current;
}

static inline unsigned CU_get_number_of_failures(void)
{
    return cunit_failures;
}

static inline unsigned CU_get_number_of_tests_run(void)
{
    return cunit_run;
}

static inline int CU_assertImplementation(int held, unsigned line, const char *condition,
                                          const char *file, const char *function, int fatal)
{
    (void)function;
    if (held)
        return CU_TRUE;
    cunit_failures++;
    printf("\n    %s:%u: %s", file, line, condition);
    if (fatal)
        longjmp(cunit_end_of_test, 1);
    return CU_FALSE;
}

static inline int CU_basic_run_tests(void)
{
    printf("Suite: %s\n", cunit_suite.name);
    for (unsigned i = 0; i < cunit_suite.count; i++) {
        unsigned before = cunit_failures;

        cunit_current = &cunit_suite.tests[i];
        cunit_run++;
        printf("  Test: %s ...", cunit_current->pName);
        fflush(stdout);
        if (setjmp(cunit_end_of_test) == 0)
            cunit_current->run();
        puts(cunit_failures == before ? "passed" : "\n    FAILED");
    }
    printf("%u tests, %u failures\n", cunit_run, cunit_failures);
    return CUE_SUCCESS;
}

#endif
