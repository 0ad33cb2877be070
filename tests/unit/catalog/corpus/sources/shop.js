// A shop: functions in every form that JavaScript has.
const password = "hunter2!secret";
const pattern = /[/"'{]+\/if (a) {/g;

function total(items, rate = 0.2) {
  let sum = 0;
  for (const item of items) {
    if (item.price > 0 && !item.free) sum += item.price;
    else if (item.fee) sum += item.fee;
  }
  return rate ? sum * (1 + rate) : sum;
}

const greet = (name) => {
  return `hello ${name ? name : "you"} {`;
};

const find = async function (id) {
  try {
    return await fetch("/" + id);
  } catch (error) {
  }
};

class Cart extends Base {
  #items = [];

  constructor(owner) {
    super();
    this.owner = owner ?? "nobody";
  }

  async *pages(size) {
    while (this.#items.length) {
      yield this.#items.splice(0, size);
    }
  }

  static of(...items) {
    return items.map((item) => {
      return item?.id;
    });
  }

  get size() {
    return this.#items.length;
  }
}

const handlers = {
  open(event) {
    switch (event.type) {
      case "click":
        return eval(event.code);
      case "key":
        return 1;
    }
  },
  close: function () {
    return a / b / c;
  },
};
