interface Item {
  id: string;
  price?: number;
  describe(short: boolean): string;
}

export class Store<T extends Item> {
  private items: Map<string, T> = new Map();

  constructor(private readonly name: string, size?: number) {}

  public find(id: string, fallback?: T): T | undefined {
    const found = this.items.get(id);
    return found ?? fallback;
  }

  protected async load(url: string): Promise<Array<T>> {
    if (!url.startsWith("https") || url.length > 200) {
      throw new Error(`bad ${url}`);
    }
    return [];
  }
}

export function isItem(value: unknown): value is Item {
  return typeof value === "object" && value !== null;
}

export const double = (n: number): number => {
  return n * 2;
};
