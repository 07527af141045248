/* Compiled with the name of one of the cases below defined: each has to be refused. */
#include <functional>
#include <string>
#include <string_view>
#include <vector>

#include <libpool.hpp>

struct point {
    int x;
    int get() const
    {
        return x;
    }
};

int main()
{
    libpool::pool pool(1);
    pool.submit([](point p) { return p; }, point{1}).get();
#if defined(string_argument)
    pool.submit([](const std::string &text) { return text.size(); }, std::string("text"));
#elif defined(vector_result)
    pool.submit([] { return std::vector<int>(3); });
#elif defined(captured_string)
    std::string text = "text";
    pool.map([text](int i) { return text[0] + i; }, std::vector<int>{1, 2});
#elif defined(reference_argument)
    int number = 1;
    pool.submit([](std::reference_wrapper<int> n) { return n.get(); }, std::ref(number));
#elif defined(string_view_argument)
    std::string text = "text";
    pool.submit([](std::string_view view) { return view.size(); }, std::string_view(text));
#elif defined(member_pointer)
    pool.submit(&point::get, point{1});
#endif
}
