/**
 * The words of codes: those of flyx/pairing/wordlist.py, which says how they were chosen.
 *
 * @module
 */

/** In alphabetical order. @type {readonly string[]} */
export const WORDS = `
abacus abbey accent acorn acre acrobat action actor adapt adjust adobe adult advice aerial agenda agile
airport alarm album alcove alert alley almond alpaca alpine amber amount ample amuse anchor angle animal
annex annual answer anthem antler anvil apricot apron arcade archer arctic arena argue aroma arrow artist
ashes aspen assist atlas atom atrium attach attend attic auburn audio august author autumn avenue avocado
avoid axis axle azure baboon bacon badge bagel baker balcony ballet balm bamboo banana banjo banner barber
barley barn barrel basil basket bathtub bazaar beam beard beetle beige belfry beluga bench beret bicycle
billow binder birch bison black blade blanket blazer blender blimp blink bloom blossom blouse blur boat
bobcat body bonfire bonnet bonus book boost botany bounce bouquet branch bravo breeze brew brick bridge
brief bright bring broad bronze broth brown brush bubble buckle budget buffalo bugle build bulb bundle
bunker burger butler button cabbage cabin cable cactus cadet cafe camel campus canal candle canoe canyon
caramel carbon cargo carpet carve cashew castle casual cavern cedar celery cement chain chance chase cheer
cherry chew chicken chimney chorus chrome cinema circle citrus civil clay clean clever client cliff climb
clinic clip clock close cloth cloud clown club clutch coach coast cobalt cobra coconut code coil collar comb
comet comic common condor copper coral corner cosmos cottage county coupon cousin cover coyote crab cradle
craft crane crater credit cricket crisp crop cross crumb crunch crystal cube curl custard cycle dairy dancer
daring dawn dazzle deck degree delta denim dentist design detail detour device diamond diesel dime dimple
dinner direct disco diver doctor dolphin domain domino donkey doodle double dove dozen dragon drawer dream
drift dryer duet dune dusk dynamo eager eagle early earth easel easy echo edge editor effort elbow elder
eleven embark emblem emerald empire empty enamel encore energy engine enjoy enrich entire equal equip erase
errand escape essay estate ethics evolve exact exit exotic expand expert extend fabric falcon family famous
fancy farmer father faucet fence fern ferry fiddle field figure film filter finger finish first five fjord
flannel fleece flight flint float fluffy fluid foam focus foggy folder follow food forest fork fossil foster
frame fresh friend fringe frog front frosty frozen fruit fudge funnel furnace fuse gadget galaxy gallery
game garage garden garlic garnet gauge gazelle gear gecko genius gentle gerbil geyser giant gibbon gift
giggle giraffe glacier glance glass gleam glide globe glory glue gnome goal goblet golden golfer gondola
goose gopher grace grain granite graph gravel grid grill ground grove grow guava guitar gust habit halibut
halo hamlet hammer hamster hand happy harmony harp hatchet haven hawk hazel heater heavy helium helmet
helper herald herb heron hidden hiker hill hinge hint hobby hockey home honey hoodie horizon hornet host
hotel hubcap humble hurdle hurry hybrid iceberg icicle icon idea igloo iguana image impact import inch index
indigo inland input insect inside invent invite iodine iris item ivory jackal jaguar jargon jasmine jasper
jazz jelly jersey jester jewel jigsaw jingle join joke joyful jumbo jump junior jury karate kayak kebab kelp
kettle kiln kimono kindly kiosk kitchen kitten kiwi knock koala label ladder ladle lagoon lake lamp lantern
laptop lark lasagna latch laugh launch layer leaf learn left legend lemon lend lentil leopard level lilac
lily limit linen lion liquid list little lizard lobster local locket logic loop lotus lucky lunar luxury
lyric magic magma magnet mailbox mammal mango manual marble march margin market maroon mascot mask math
matrix meadow melody member memory mentor menu merit mermaid mesh meteor method metro mildew milk mimic
minnow minute mirror mixer mobile modern mohair moment month mosaic mouse movie muffin mule museum mutual
myrtle napkin nature navy nearby nebula nectar needle neon nephew nest news nibble nickel ninja nomad north
nougat novel number nurse nutmeg nylon oasis oats oboe ocean octagon office okra olive omega onion onyx opal
opaque open opera orange orbit orchard order organ origin osprey ostrich otter outfit outlet owner oxygen
oyster ozone paddle padlock page pagoda palace pancake panda panel papaya paper parade parcel parent parka
parrot parsley pasta patio patrol peach peanut pearl pebble pecan pelican pencil penguin permit phone photo
phrase piano pickle picnic piglet pine pivot pixel pizza planet plaza plenty pliers plug poem point polar
polka pond popcorn pose potato powder prime prism proof proton proud prune public pulley pulp pumpkin puppet
purple puzzle pyramid python quilt raccoon racket radar radio raffle rainbow raisin rally random ranger
rapid rattle razor recipe record region relax remedy remote render repair rescue reward rhythm rice rinse
ripple ritual robin robot rooster rope rotate royal rubber ruby ruler runway rural rustic safari saffron
sailor salad salmon salsa salt salute sandal sardine satin sauna save scarf school scout screen script seal
search season seek select sesame seven shadow shark sheet shelf shield shine shirt shore shovel shrimp shrub
siesta signal silent silo silver siren sister sketch slalom slate sled sleeve slice slogan slope small smart
smooth snack snail snap snow soccer soda sonata sonic sorbet sparrow sphere spider spiral splash sponge
spoon sport spray spread spring sprout spruce spur square squid staff stage stamp stand star steam steep
stereo stitch stone stork straw street stripe strong studio style suburb subway suede sugar summer sunset
super swan swift swim swivel syrup system tablet tackle tactic taffy talent talk tape target tassel taste
taxi teapot teddy temple tennis tent thank theme theory thorn thread thumb tidal tiger tilt timber timid
tiny tissue titan title toffee tomato tooth topaz topic torch tornado toss toucan towel town tractor trade
trail tree trim troop trophy trout truck trumpet trust truth tugboat tulip tundra turnip turtle tutor tuxedo
twelve twenty twig twist ultra uncle unicorn unique unit unlock uphill urban urchin usher utopia vacant
vacuum valid valve vanilla vase vault vector velcro velvet vendor vessel video view village vinyl viola
virtue vitamin vivid voice volcano volume vote voyage wagon waiter walnut walrus waltz wander warm wealth
weave wharf whim whisk white wicker widget wigwam wild window wing winter wire wisdom wolf wombat wool word
wren wrist yacht yard yeast yellow yodel yoga yoyo yucca zebra zephyr zero zigzag zinc zircon zodiac zoom
`
  .trim()
  .split(/\s+/);
