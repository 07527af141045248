// libpool.h in C++.
#include "main.c"
