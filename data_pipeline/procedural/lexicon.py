"""The words that values and sentences are made of: common, single, lower case, each in one list only."""


def _words(text: str) -> tuple[str, ...]:
    return tuple(text.split())


NOUNS = _words(
    """
    apple anchor arrow basket beach bell bird blanket boat book bottle bowl bread bridge brush bucket button cabin
    cake camera candle carpet castle chair cheese cherry circle clock cloud coat coffee coin corner cotton cousin
    cradle crown curtain desert diamond dinner doctor dollar dragon drawer dress drum eagle engine farmer feather
    fence field finger flower forest fork fountain garden ghost giant glass glove grape guitar hammer harbor helmet
    honey horse hotel island jacket jewel journey juice kettle king kitchen kite ladder lake lamp lantern lemon
    letter lion machine magnet map market mirror monkey moon mountain mouse needle nest ocean onion orange oven
    paint palace paper parrot path pencil pepper piano picture pillow pirate planet plate pocket potato prince
    pumpkin puzzle queen rabbit rain ribbon river robot rocket roof rope salad scarf school shadow sheep ship shoe
    silver snow soap spider spoon stamp star stone storm story sugar summer table teacher temple thunder ticket
    tiger tower train tree trumpet turtle uncle valley violin wagon wallet water whale wheel window winter wizard
    wolf zebra
    """
)

ADJECTIVES = _words(
    """
    brave bright broken calm clever cold curious dark early empty famous friendly gentle golden happy heavy hidden
    honest hungry kind large little lonely narrow noisy old patient proud quick quiet rare rough shy simple slow
    small soft strange strong tall tired warm wild young
    """
)

VERBS = _words(
    """
    admired borrowed brought carried chased cleaned counted covered described discovered dropped examined followed
    found guarded helped ignored lifted liked lost moved noticed painted passed praised pushed repaired saw sold
    studied touched visited watched
    """
)

PREPOSITIONS = ("above", "behind", "below", "beside", "inside", "near", "outside", "under")

TIMES = (
    "again",
    "alone",
    "at noon",
    "before dawn",
    "every day",
    "in silence",
    "last year",
    "today",
    "together",
    "twice",
)

PEOPLE = _words(
    """
    Ada Ali Amir Anna Ben Carla Chen Clara Daniel Diego Elena Emma Felix Grace Hana Hugo Ines Ivan James Jun Kofi
    Laura Leo Lina Lucas Maria Marta Mei Mila Nadia Nina Noah Omar Oscar Paula Peter Rosa Ruth Samir Sara Sofia
    Tariq Theo Tom Vera Victor Yara Zoe
    """
)

FIELDS = {
    "animal": ("cat", "dog", "hamster", "owl", "pony", "snail"),
    "city": ("Accra", "Athens", "Cairo", "Lima", "Lisbon", "Nairobi", "Oslo", "Quito", "Seoul", "Vienna"),
    "color": ("black", "blue", "brown", "green", "purple", "red", "white", "yellow"),
    "day": ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday"),
    "drink": ("cider", "cocoa", "lemonade", "milk", "tea"),
    "fruit": ("banana", "fig", "mango", "melon", "papaya", "pear", "plum"),
    "hobby": ("chess", "cooking", "dancing", "fishing", "painting", "running", "sailing", "singing"),
    "job": ("baker", "dentist", "judge", "lawyer", "nurse", "pilot", "sailor", "singer", "tailor", "waiter"),
    "language": ("Arabic", "Bengali", "French", "Greek", "Hindi", "Korean", "Spanish", "Swahili", "Turkish"),
    "meal": ("curry", "noodles", "pasta", "pizza", "rice", "soup", "stew"),
    "month": ("January", "March", "April", "June", "July", "August", "October", "December"),
    "name": PEOPLE,
    "room": ("attic", "bathroom", "bedroom", "cellar", "garage", "library", "office"),
    "season": ("autumn", "fall", "monsoon", "spring"),
    "sport": ("boxing", "cricket", "football", "hockey", "rowing", "rugby", "tennis"),
    "vehicle": ("bicycle", "bus", "ferry", "motorcycle", "scooter", "tractor", "tram", "truck", "van"),
}
