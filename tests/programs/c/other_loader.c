/* A program that names another loader than glibc's (by a linker flag). It is never started. */
int main(void) { return 0; }
