// The same program with libpool.hpp.
#include <exception>
#include <iostream>
#include <libpool.hpp>
#include <vector>

int main()
{
    try {
        libpool::pool pool(2);
        int factor = 6;
        std::vector<int> products =
            pool.map([factor](int x) { return factor * x; }, std::vector<int>{7});
        std::cout << "libpool " << pool_version() << ": 6 * 7 = " << products.at(0) << std::endl;
    } catch (const std::exception &exception) {
        std::cerr << exception.what() << std::endl;
        return 1;
    }
}
