#include <regex>
#include <map>
#include <unordered_map>
#include <functional>
#include <future>
#include <iostream>
#include <filesystem>
#include <variant>
#include <vector>
#include <string>
#include <algorithm>
namespace part {
struct record { long number; std::string name; std::vector<int> many; std::map<std::string, std::vector<std::string>> table; };
static std::map<int, record> records;
template <int N> struct layer { std::array<record, N> all; std::unordered_map<std::string, std::variant<int, double, record>> by_name;
  long walk(long depth) { std::function<long(long)> f = [this, depth](long x) { return x + depth + (long)by_name.size(); }; by_name["a"] = N; all[0].table["x"].push_back("y"); std::sort(all[0].many.begin(), all[0].many.end()); return f(N); } };
template <int N> long all(long seed) { layer<N> one; long here = one.walk(seed) ; if constexpr (N > 1) return here + all<N - 1>(here); return here; }
}
extern "C" long entry_000(long seed) {
  std::regex word("[a-z]+"); std::smatch m; std::string text = "abc";
  auto later = std::async([] { return 7L; });
  return part::all<24>(seed) + std::regex_search(text, m, word) + later.get() + (long)part::records.size();
}
