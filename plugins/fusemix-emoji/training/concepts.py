"""Which emoji the model learns, and the words people use for them beside Unicode's own names."""

from __future__ import annotations

GROUPS = ("Animals & Nature", "Food & Drink", "Travel & Places", "Objects", "Activities")

# Pictures of a group that differ from others only in detail, or that show signs and text.
LEFT_OUT = """
guide dog; service dog; pig nose; rosette; front-facing baby chick; wilted flower; orca
sheaf of rice; shamrock; leafless tree; wing; microbe; two-hump camel; water buffalo
tamale; stuffed flatbread; oden; moon cake; fish cake with swirl; beverage box; mate; flatbread
clinking glasses; rice cracker; shallow pan of food; pot of food; fondue; bento box; butter; salt
curry rice; teacup without handle; tumbler glass; takeout box; falafel; ginger root; pea pod
beans; brown mushroom; root vegetable; sake; cut of meat; fork and knife with plate; shaved ice
globe showing Americas; globe showing Asia-Australia; globe with meridians; world map
map of Japan; landslide; desert island; national park; building construction; derelict house
Japanese post office; post office; bank; hotel; love hotel; convenience store; department store
wedding; Tokyo tower; hindu temple; synagogue; shinto shrine; kaaba; foggy; cityscape at dusk
sunrise over mountains; hot springs; barber pole; high-speed train; metro; light rail; station
monorail; mountain railway; tram car; oncoming bus; trolleybus; minibus; oncoming police car
oncoming taxi; oncoming automobile; articulated lorry; manual wheelchair; motorized wheelchair
bus stop; motorway; oil drum; wheel; horizontal traffic light; construction; passenger ship
motor boat; small airplane; airplane departure; airplane arrival; seat; suspension railway
mountain cableway; hourglass not done; timer clock; new moon; waxing crescent moon
first quarter moon; waxing gibbous moon; waning gibbous moon; last quarter moon
waning crescent moon; new moon face; first quarter moon face; last quarter moon face
full moon face; glowing star; milky way; sun behind cloud; sun behind large cloud
cloud with lightning; fog; closed umbrella; umbrella on ground; snowman without snow; houses
house with garden; railway car; tram; brick; stadium; sun behind small cloud
safety vest; sari; briefs; woman’s clothes; purse; clutch bag; thong sandal; flat shoe
woman’s sandal; ballet shoes; hair pick; billed cap; military helmet; muted speaker
speaker low volume; speaker medium volume; bell with slash; musical score; musical notes
control knobs; level slider; mobile phone with arrow; pager; low battery; trackball; dvd
computer disk; film frames; camera with flash; video camera; magnifying glass tilted left
diya lamp; notebook with decorative cover; blue book; orange book; notebook; ledger
page facing up; rolled-up newspaper; bookmark tabs; bookmark; yen banknote; euro banknote
pound banknote; credit card; receipt; chart increasing with yen; e-mail; incoming envelope
envelope with arrow; outbox tray; inbox tray; closed mailbox with lowered flag
open mailbox with raised flag; open mailbox with lowered flag; postbox; ballot box with ballot
black nib; file folder; open file folder; card index dividers; tear-off calendar
spiral notepad; spiral calendar; card index; chart decreasing; round pushpin; linked paperclips
triangular ruler; card file box; file cabinet; unlocked; locked with pen; locked with key
old key; hammer and pick; hammer and wrench; white cane; link; broken chain; chains
satellite antenna; x-ray; elevator; nazar amulet; hamsa; placard; identification card
page with curl; clipboard; petri dish; funeral urn; headstone; coffin; prayer beads; cigarette
roll of paper; mouse trap; lotion bottle; desktop computer; goggles; lab coat; one-piece swimsuit
safety pin; label; adhesive bandage; crutch; fax machine; videocassette; kimono; shorts; hook
firecracker; sparkler; tanabata tree; pine decoration; moon viewing ceremony; red envelope
reminder ribbon; ticket; admission tickets; sports medal; 2nd place medal; 3rd place medal
softball; flying disc; field hockey; lacrosse; rugby football; cricket game; goal net
spade suit; heart suit; diamond suit; club suit; joker; mahjong red dragon
flower playing cards; knot; running shirt; martial arts uniform; nesting dolls; slot machine
""".strip()

ADDED = """
grinning face; face with tears of joy; winking face; smiling face with heart-eyes; thinking face
smiling face with sunglasses; sleeping face; sneezing face; face exhaling; face with medical mask
crying face; loudly crying face; angry face; face screaming in fear; yawning face; skull
pile of poo; ghost; alien; alien monster; robot; red heart; broken heart; collision; speech balloon
clapping hands; thumbs up; raised fist; footprints; ear; eye; mouth; tongue; tooth; bone; brain
baby; Santa Claus; mermaid; person walking; foot; nose; victory hand; clown face; hole; dashing away
""".strip()

# How people call a sound or a thing whose emoji has another name.
SYNONYMS: dict[str, tuple[str, ...]] = {
    "airplane": ("plane flying", "jet engine"),
    "alarm clock": ("alarm", "clock alarm"),
    "automobile": ("car", "red car", "car horn", "engine"),
    "baby": ("crying baby", "baby cry", "infant"),
    "black bird": ("crow", "raven"),
    "bird": ("chirping birds", "birdsong"),
    "bubbles": ("bubbling",),
    "broom": ("sweeping",),
    "canned food": ("can opening", "tin can"),
    "carpentry saw": ("hand saw", "chainsaw", "sawing wood", "saw"),
    "cat": ("meowing cat",),
    "church": ("church bells",),
    "bell": ("ringing bell", "church bell"),
    "clapping hands": ("clapping", "applause"),
    "cloud with lightning and rain": ("thunderstorm", "thunder"),
    "cloud with rain": ("rain", "rainfall"),
    "computer mouse": ("mouse click",),
    "cow": ("mooing cow",),
    "cricket": ("crickets", "insects chirping"),
    "cup with straw": ("drinking, sipping", "soft drink"),
    "dog": ("dog bark", "barking dog"),
    "dog face": ("puppy", "dog barking"),
    "door": ("door knock", "knocking on a door", "creaking door"),
    "droplet": ("water drops", "drop of water"),
    "ewe": ("sheep", "bleating sheep"),
    "face exhaling": ("breathing", "sigh"),
    "face with medical mask": ("coughing", "cough"),
    "face with tears of joy": ("laughing", "laughter"),
    "fire": ("crackling fire", "fire crackling", "flames"),
    "fireworks": ("fireworks exploding",),
    "footprints": ("footsteps", "walking steps"),
    "frog": ("croaking frog",),
    "helicopter": ("helicopter flying",),
    "chicken": ("hen", "clucking hen"),
    "honeybee": ("bee", "buzzing bee"),
    "keyboard": ("keyboard typing", "typing"),
    "locomotive": ("train", "steam train"),
    "mantelpiece clock": ("clock tick", "ticking clock"),
    "mouth": ("lips",),
    "pig": ("oinking pig",),
    "police car light": ("siren",),
    "pouring liquid": ("pouring water",),
    "rooster": ("crowing rooster", "cockerel"),
    "sleeping face": ("snoring",),
    "sneezing face": ("sneezing", "person sneeze", "sneeze"),
    "toilet": ("toilet flush", "flushing toilet"),
    "toothbrush": ("brushing teeth",),
    "loudly crying face": ("sobbing",),
    "water wave": ("sea waves", "waves", "ocean"),
    "wind face": ("wind", "wind blowing"),
    "wine glass": ("glass breaking", "wine"),
    "fly": ("insects", "buzzing fly"),
    "speaker high volume": ("loud noise",),
    "tropical fish": ("orange fish",),
    "fish": ("blue fish",),
    "red heart": ("love", "heart"),
    "sauropod": ("dinosaur",),
    "T-Rex": ("tyrannosaurus", "dinosaur"),
    "spouting whale": ("blue whale",),
    "honey pot": ("honey",),
    "hot beverage": ("coffee", "cup of coffee", "cup of tea"),
    "beer mug": ("beer",),
    "ear of corn": ("corn",),
    "doughnut": ("donut",),
    "french fries": ("fries",),
    "soccer ball": ("football",),
    "red apple": ("apple",),
    "glass of milk": ("milk",),
    "steaming bowl": ("soup", "noodles"),
    "cooked rice": ("rice",),
    "high voltage": ("lightning",),
    "cloud with snow": ("snow", "snowfall"),
    "drop of blood": ("blood",),
    "television": ("tv",),
    "mobile phone": ("smartphone",),
    "laptop": ("computer",),
    "light bulb": ("lamp",),
    "open book": ("book", "reading"),
    "bouquet": ("flowers",),
    "deciduous tree": ("tree",),
    "evergreen tree": ("pine tree", "forest"),
    "ship": ("boat",),
    "guitar": ("playing guitar",),
    "drum": ("drumming",),
    "musical keyboard": ("piano",),
    "telephone": ("phone ringing",),
    "musical note": ("music", "song"),
    "house": ("home",),
    "globe showing Europe-Africa": ("earth", "the world"),
    "ringed planet": ("planet", "saturn"),
    "full moon": ("moon",),
    "crescent moon": ("night",),
    "sun": ("sunny",),
    "ambulance": ("ambulance siren",),
    "police car": ("police",),
    "bed": ("bedroom",),
    "bathtub": ("bath",),
    "gem stone": ("diamond",),
    "money bag": ("money",),
    "birthday cake": ("cake",),
    "hamburger": ("burger",),
    "tractor": ("engine",),
    "shower": ("running water",),
}


def names(text: str) -> list[str]:
    """The names in one of the lists above."""
    return [name.strip() for name in text.replace("\n", ";").split(";") if name.strip()]
