/* What harness.c needs of CUnit, where there is no CUnit for the C library that is tested: the same
 * names, the same meaning. Only harness.c may include it, for each variable here is one of its own.
 */
#ifndef CUNIT_STAND_IN_H
#define CUNIT_STAND_IN_H

#define CU_TRUE 1
#define CU_FALSE 0

#endif
