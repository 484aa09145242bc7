#include "service/primer_text.h"

namespace kvasir {

// Changing a letter makes all KV encoded behind it another key: collections keep the token ids
// that they were made with.
const std::string_view kPrimerText =
    "The Carpathian lynx is a medium-sized wild cat that lives in mountain forests of eastern "
    "Europe; adults weigh between 18 and 30 kilograms and hunt mainly roe deer. Paper was "
    "made in China by the second century from hemp, mulberry bark and rags, and the craft "
    "reached Baghdad some six hundred years later. Lake Baikal in southern Siberia holds "
    "about one fifth of the world's unfrozen fresh water and is more than 1,600 metres deep. "
    "In 1869 the chemist Dmitri Mendeleev arranged the known elements by atomic weight and "
    "left gaps for those still to be found. A suspension bridge carries its deck on vertical "
    "hangers attached to cables that pass over towers and are anchored at both ends. The "
    "cello, tuned in fifths an octave below the viola, became a solo instrument in the "
    "eighteenth century. Bergen, on the west coast of Norway, was for centuries a port where "
    "merchants dealt in dried fish and grain. Light from the Sun takes a little over eight "
    "minutes to reach the Earth, while its nearest neighbour among the stars is about four "
    "light-years away.";

}  // namespace kvasir
